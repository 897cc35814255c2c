{{/* Values of an earlier version, kept by --reuse-values, may not say how many. */}}
{{- define "finetune-operator.replicas" -}}
{{- default 2 .Values.replicas -}}
{{- end -}}

{{/*
"true" where the operator that this release runs now is of a version without a Lease: it has to be gone before others act. Whoever
renders without a cluster (helm template, Argo CD) does not see it.
*/}}
{{- define "finetune-operator.replacesOneWithoutLease" -}}
{{- $there := lookup "apps/v1" "Deployment" .Release.Namespace (include "finetune-operator.fullname" .) -}}
{{- range (dig "spec" "template" "spec" "containers" list $there) -}}
{{- $arguments := join "\n" .args -}}
{{- if and (regexMatch "(?m)^--trainer-image=" $arguments) (not (regexMatch "(?m)^--lease=" $arguments)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Replicas keep away from each other where they can, beside whatever else is asked for. */}}
{{- define "finetune-operator.affinity" -}}
{{- $apart := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "finetune-operator.selectorLabels" . | fromYaml)) -}}
{{- $term := dict "weight" 100 "podAffinityTerm" $apart -}}
{{- $default := dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- merge (deepCopy (default dict .Values.affinity)) $default | toYaml -}}
{{- end -}}

{{/* The Role of an operator of one namespace may lie beside it. */}}
{{- define "finetune-operator.leaseRole" -}}
{{- include "finetune-operator.fullname" . }}:lease
{{- end -}}
