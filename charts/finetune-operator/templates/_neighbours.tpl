{{/*
Fails where another release operates the same FineTuneJobs: two operators would both act on them. Looks in all namespaces, or,
where whoever installs may not, in this one.
*/}}
{{- define "finetune-operator.noOtherOperator" -}}
{{- $where := ternary "" .Release.Namespace (eq "true" (include "finetune-operator.actsOnCluster" .)) -}}
{{- $us := printf "%s/%s" .Release.Namespace (include "finetune-operator.fullname" .) -}}
{{- $release := printf "%s/%s" .Release.Namespace .Release.Name -}}
{{- $mine := default "" .Values.watchNamespace -}}
{{- if eq $mine "all" -}}
{{- fail "watchNamespace: leave it empty for all namespaces; a namespace called all cannot be watched alone." -}}
{{- end -}}
{{- range (lookup "apps/v1" "Deployment" $where "").items -}}
{{- $it := printf "%s/%s" .metadata.namespace .metadata.name -}}
{{- $annotations := default dict .metadata.annotations -}}
{{- $of := printf "%s/%s" (index $annotations "meta.helm.sh/release-namespace") (index $annotations "meta.helm.sh/release-name") -}}
{{- $is_ours := or (eq $it $us) (eq $of $release) -}}
{{- $runs := and (not $is_ours) (not (hasKey .metadata "deletionTimestamp")) (ne 0 (int (dig "spec" "replicas" 1 .))) -}}
{{- range .spec.template.spec.containers -}}
{{- $arguments := join "\n" .args -}}
{{- if and $runs (regexMatch "(?m)^--trainer-image=" $arguments) -}}
{{- $theirs := regexFind "(?m)^--namespace=.+$" $arguments | trimPrefix "--namespace=" -}}
{{- $theirs = ternary "" $theirs (eq $theirs "all") -}}
{{- if or (not $mine) (not $theirs) (eq $mine $theirs) -}}
{{- printf "\n\nDeployment %s is an operator of the FineTuneJobs in %s already, and two would both act on the same jobs. Uninstall that one first, or let each watch another namespace (watchNamespace).\n" $it (ternary (printf "namespace %s" $theirs) "all namespaces" (not (empty $theirs))) | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
