{{/* "true" where trainers tell the operator how far they are. Whose tokens they show can be asked only with a right in the whole cluster. */}}
{{- define "finetune-operator.hearsTrainers" -}}
{{- if and (.Values.progress).enabled (not .Values.watchNamespace) -}}true{{- end -}}
{{- end -}}

{{/* Name of the Service that they reach; fewer characters than others may have, and no dots. */}}
{{- define "finetune-operator.progressName" -}}
{{- include "finetune-operator.fullname" . | replace "." "-" | trunc 54 | trimSuffix "-" -}}-progress
{{- end -}}

{{- define "finetune-operator.progressSecret" -}}
{{- default (include "finetune-operator.progressName" .) (.Values.progress).secretName -}}
{{- end -}}
