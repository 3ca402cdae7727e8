{{/*
How Kafka is reached, as YAML: what goes into the configuration (settings), the
files of the volume /etc/brucke/kafka (sources), and the variables (env). From
`kafka.strimzi`, or from the Secrets that `kafka` names.
*/}}
{{- define "brucke.kafka" -}}
{{- $values := .Values.kafka -}}
{{- $username := $values.username -}}
{{- $password := $values.password -}}
{{- $ca := $values.ca -}}
{{- $certificate := $values.certificate -}}
{{- $settings := dict -}}
{{- with $values.strimzi -}}
{{- if and .user (not .cluster) -}}
{{- fail "kafka.strimzi.user is set and kafka.strimzi.cluster is not: name the Strimzi Kafka that the KafkaUser belongs to" -}}
{{- end -}}
{{- if .cluster -}}
{{- if or $username.secretName $password.secretName $ca.secretName $certificate.secretName -}}
{{- fail "kafka.strimzi.cluster contradicts kafka.username, password, ca and certificate: the Secrets of Strimzi are used; take one of the two out" -}}
{{- end -}}
{{- $_ := set $settings "bootstrap_servers" (list (printf "%s-kafka-bootstrap:%d" .cluster (int .port))) -}}
{{- $ca = dict "secretName" (printf "%s-cluster-ca-cert" .cluster) "key" "ca.crt" -}}
{{- if and .user (eq .authentication "tls") -}}
{{- $certificate = dict "secretName" .user "certificateKey" "user.crt" "privateKey" "user.key" -}}
{{- else if .user -}}
{{- $_ := set $settings "username" .user -}}
{{- $password = dict "secretName" .user "key" "password" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $sources := list -}}
{{- $env := list -}}
{{- if $username.secretName -}}
{{- $env = append $env (dict "name" "BRUCKE_KAFKA_USERNAME" "valueFrom" (dict "secretKeyRef" (dict "name" $username.secretName "key" $username.key))) -}}
{{- end -}}
{{- if $ca.secretName -}}
{{- $_ := set $settings "security" "tls" -}}
{{- $_ := set $settings "ca_file" "/etc/brucke/kafka/ca.crt" -}}
{{- $sources = append $sources (include "brucke.source" (list $ca.secretName $ca.key "ca.crt") | fromYaml) -}}
{{- end -}}
{{- if $certificate.secretName -}}
{{- $_ := set $settings "security" "tls" -}}
{{- $_ := set $settings "certificate_file" "/etc/brucke/kafka/client.crt" -}}
{{- $_ := set $settings "key_file" "/etc/brucke/kafka/client.key" -}}
{{- $sources = append $sources (include "brucke.source" (list $certificate.secretName $certificate.certificateKey "client.crt" $certificate.privateKey "client.key") | fromYaml) -}}
{{- if $certificate.passphraseKey -}}
{{- $env = append $env (dict "name" "BRUCKE_KAFKA_KEY_PASSWORD" "valueFrom" (dict "secretKeyRef" (dict "name" $certificate.secretName "key" $certificate.passphraseKey))) -}}
{{- end -}}
{{- end -}}
{{- if $password.secretName -}}
{{- $_ := set $settings "security" "sasl_tls" -}}
{{- $_ := set $settings "sasl_mechanism" "SCRAM-SHA-512" -}}
{{- $_ := set $settings "password_file" "/etc/brucke/kafka/password" -}}
{{- $sources = append $sources (include "brucke.source" (list $password.secretName $password.key "password") | fromYaml) -}}
{{- end -}}
{{- dict "settings" $settings "sources" $sources "env" $env | toYaml -}}
{{- end }}

{{/* A Secret within a projected volume: [name, key, path, …]. */}}
{{- define "brucke.source" -}}
{{- $items := list (dict "key" (index . 1) "path" (index . 2)) -}}
{{- if gt (len .) 3 -}}
{{- $items = append $items (dict "key" (index . 3) "path" (index . 4)) -}}
{{- end -}}
{{- dict "secret" (dict "name" (index . 0) "items" $items) | toYaml -}}
{{- end }}
