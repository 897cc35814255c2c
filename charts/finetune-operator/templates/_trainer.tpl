{{/*
The operator's arguments about training pods. Values of an earlier version, kept by --reuse-values, may lack all of it. What the
operator would refuse is refused here already; platform.py has the same list.
*/}}
{{- define "finetune-operator.trainerArguments" -}}
{{- range $name, $value := .Values.trainer.env }}
{{- $why := "" }}
{{- if regexMatch "(?i)^(LD_|PYTHON|FINETUNE_).*$" $name }}{{ $why = "it would change what runs in the pod" }}
{{- else if regexMatch "(?i)^(HOME|PATH|USER|TMPDIR|XDG_CACHE_HOME|HF_HOME|MPLCONFIGDIR|TORCHINDUCTOR_CACHE_DIR|TRITON_CACHE_DIR)$" $name }}{{ $why = "the operator sets it itself" }}
{{- else if regexMatch "(?i)^(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$" $name }}{{ $why = "name a ConfigMap in trainer.trustedCa instead" }}
{{- else if regexMatch "(?i)^(AWS|GOOGLE|AZURE)_.*$" $name }}{{ $why = "storage is each job's own: spec.storage, and the Secret that it names" }}
{{- else if regexMatch "(?i)^(.*_)?(TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$" $name }}{{ $why = "every Job would show it; name a Secret in spec.storage.secretRef or spec.hub.tokenSecretRef" }}
{{- end }}
{{- if $why }}{{ printf "trainer.env: %s cannot be set for all jobs: %s." $name $why | fail }}{{ end }}
{{- if regexMatch "(^|://)[^/@\\s]*:[^/@\\s]*@" $value }}{{ printf "trainer.env: %s holds a password, and every Job would show it; let the pods in without one." $name | fail }}{{ end }}
{{- /* A double $ is one to the kubelet, which would else put other variables into $(…). */}}
- {{ printf "--trainer-env=%s=%s" $name $value | replace "$" "$$" | quote }}
{{- end }}
{{- with (.Values.trainer.trustedCa).configMap }}
- --trainer-trusted-ca={{ . }}/{{ default "ca.crt" $.Values.trainer.trustedCa.key }}
{{- end }}
{{- if eq "false" (include "finetune-operator.fixedIds" .) }}
- --no-fixed-ids
{{- end }}
{{- end -}}

{{- define "finetune-operator.fixedIds" -}}
{{- if hasKey (default dict .Values.podSecurity) "fixedIds" }}{{ .Values.podSecurity.fixedIds }}{{ else }}true{{ end -}}
{{- end -}}
