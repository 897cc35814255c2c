{{/*
Who owns the FineTuneJob kind: one kind is there for all releases, and it outlives them. As YAML:

  ours:   whether this release installs and upgrades it
  reason: why not, where another release owns one that is the same

Fails with what to do where it is another one. Without a cluster to ask (helm template, Argo CD) it is ours.
*/}}
{{- define "finetune-operator.kind" -}}
{{- if not .Values.crds.enabled -}}
ours: false
{{- else -}}
{{- $crd := .Files.Get "files/crd.yaml" | fromYaml -}}
{{- $name := $crd.metadata.name -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name -}}
{{- $annotations := default dict (dig "metadata" "annotations" dict $there) -}}
{{- $owner := index $annotations "meta.helm.sh/release-name" -}}
{{- $home := index $annotations "meta.helm.sh/release-namespace" -}}
{{- $is_same := eq (toJson $crd.spec.versions) (dig "spec" "versions" list $there | toJson) -}}
{{- if not $there -}}
ours: true
{{- else if dig "metadata" "deletionTimestamp" "" $there -}}
{{- printf "\n\nThe kind %s is being deleted, and every FineTuneJob with it. Wait until `kubectl get crd %s` no longer shows it, then install again.\n" $name $name | fail -}}
{{- else if and (eq (default "" $owner) .Release.Name) (eq (default "" $home) .Release.Namespace) -}}
ours: true
{{- else -}}
{{- $whose := ternary (printf "belongs to release %s in namespace %s" $owner $home) "was not installed by Helm" (not (empty $owner)) -}}
{{- if $is_same -}}
ours: false
reason: The FineTuneJob kind {{ $whose }} and is the same as this chart's. It stays as it is; before an upgrade of this release it has to be upgraded.
{{- else -}}
{{- $keep := ternary (printf "\n  - If that release is still there (helm list --namespace %s), upgrade it to this version of the chart first." $home) "" (not (empty $owner)) -}}
{{- $force := ternary " with --force-conflicts" "" (semverCompare ">=4" .Capabilities.HelmVersion.Version) -}}
{{- printf "\n\nThe kind %s is there already, %s, and is not the one of this chart. Choose one:%s\n  - Set crds.enabled=false: somebody else keeps the kind up to date.\n  - Hand it over to this release, then install again%s. No FineTuneJob is touched:\n      kubectl label crd %s --overwrite app.kubernetes.io/managed-by=Helm\n      kubectl annotate crd %s --overwrite meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s\n" $name $whose $keep $force $name $name .Release.Name .Release.Namespace | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
