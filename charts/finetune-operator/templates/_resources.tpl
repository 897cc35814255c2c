{{/*
The operator's resources. What it could never run with is refused: mostly a unit was forgotten, and Kubernetes takes memory: 64 for 64 bytes
and cpu: 1000 for a thousand cores.
*/}}
{{- define "finetune-operator.resources" -}}
{{- $limits := default dict .Values.resources.limits -}}
{{- range $kind := list "limits" "requests" -}}
{{- range $name, $value := index $.Values.resources $kind -}}
{{- $path := printf "resources.%s.%s" $kind $name -}}
{{- $amount := include "finetune-operator.amount" $value | float64 -}}
{{- $least := dict "memory" (ternary 67108864.0 1048576.0 (eq $kind "limits")) "cpu" (ternary 0.01 0.0 (eq $kind "limits")) -}}
{{- if and (eq $kind "limits") (eq $amount 0.0) -}}
{{- printf "%s: 0 is no limit that anything could keep; write null for none." $path | fail -}}
{{- else if and (eq $name "memory") (gt $amount 0.0) (lt $amount (get $least $name)) -}}
{{- printf "%s: %v is less than the operator ever takes (some 100Mi); write a number with its unit, such as 512Mi." $path $value | fail -}}
{{- else if and (eq $name "cpu") (lt $amount (get $least $name)) -}}
{{- printf "%s: %v is too little to ever be ready; write 500m for half a core, or leave it out." $path $value | fail -}}
{{- else if and (eq $name "cpu") (gt $amount 100.0) -}}
{{- printf "%s: %v are so many cores, and the operator takes no more than one; write 500m for half of one." $path $value | fail -}}
{{- end -}}
{{- if and (eq $kind "requests") (hasKey $limits $name) -}}
{{- $limit := get $limits $name -}}
{{- if gt $amount (include "finetune-operator.amount" $limit | float64) -}}
{{- printf "%s: %v is more than resources.limits.%s, which is %v; lower it, or raise that." $path $value $name $limit | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml .Values.resources -}}
{{- end -}}

{{/* What a quantity of Kubernetes amounts to, as a number. */}}
{{- define "finetune-operator.amount" -}}
{{- if kindIs "string" . -}}
{{- $unit := regexFind "(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)$" . -}}
{{- $units := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
