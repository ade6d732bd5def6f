#!/bin/sh
# Writes the passwords of docker-compose.scale.yml to FILE, unless it is there: deploy/secrets.sh FILE
set -eu
[ -e "$1" ] && exit 0

secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
cat >"$1.new" <<SECRETS
# Made once. Those of the gateway and the profile service may be changed: edit, then make up-scale.
DUET_POSTGRES_PASSWORD=$(secret)
DUET_PROFILE_DATABASE_PASSWORD=$(secret)
DUET_GATEWAY_DATABASE_PASSWORD=$(secret)
DUET_BUS_PASSWORD=$(secret)
DUET_SERVICE_SECRET=$(secret)
SECRETS
mv "$1.new" "$1"
echo "Made $1 with new passwords; keep it: without it the databases cannot be opened."
