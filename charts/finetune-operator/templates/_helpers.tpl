{{/* Name of everything this release makes in a namespace. */}}
{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of what belongs to no namespace: releases of one name may live in several. */}}
{{- define "finetune-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "finetune-operator.fullname" .) -}}
{{- end -}}

{{/* "true" where whoever installs must be able to write objects of the whole cluster; nothing of it is even read otherwise. */}}
{{- define "finetune-operator.actsOnCluster" -}}
{{- if or .Values.crds.enabled (not .Values.watchNamespace) -}}true{{- end -}}
{{- end -}}

{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "finetune-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/*
The name of a Service, which alone of all that is made here has to begin with a letter before Kubernetes 1.36: include … (list . name)
*/}}
{{- define "finetune-operator.ofAService" -}}
{{- $given := (index . 0).Values.fullnameOverride -}}
{{- $version := (index . 0).Capabilities.KubeVersion.Version -}}
{{- $name := index . 1 -}}
{{- if and (semverCompare "<1.36-0" $version) (not (regexMatch "^[a-z]" $name)) -}}
{{- $what := ternary (printf "fullnameOverride: %q" $given) (printf "the name of the release, %q," (index . 0).Release.Name) (not (empty $given)) -}}
{{- printf "%s begins with a digit, and Kubernetes %s takes no Service called %s; set fullnameOverride to a name that begins with a letter." $what $version $name | fail -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image's name from its repository and digest, tag or the default tag: include … (list image path-of-the-value defaultTag) */}}
{{- define "finetune-operator.image" -}}
{{- $image := index . 0 -}}
{{- $path := index . 1 -}}
{{- if contains "@" $image.repository -}}
{{- printf "%s.repository: %q holds a digest; give that in %s.digest." $path $image.repository $path | fail -}}
{{- else if regexMatch ":[^/]*$" $image.repository -}}
{{- printf "%s.repository: %q holds a tag; give that in %s.tag." $path $image.repository $path | fail -}}
{{- else if not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+((\\.|_{1,2}|-+|/)[a-z0-9]+)*$" $image.repository) -}}
{{- printf "%s.repository: %q is no name of an image; write it as registry.example.com:5000/team/name, the name in lower case." $path $image.repository | fail -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 2) $image.tag) -}}
{{- end -}}
{{- end -}}
