#!/bin/sh
# Replaces the services of docker-compose.scale.yml one after the other, each only when the one before
# is ready: deploy/roll.sh docker compose --file docker-compose.scale.yml …
# A gateway that stops tells its clients, finishes what it has taken, and they go to the others.
set -eu
ready_within_s=90

wait_until_healthy() {
  waited_s=0
  until [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; do
    if [ "$waited_s" -ge "$ready_within_s" ]; then
      echo "$2 is not ready after $ready_within_s s; the rest stays as it is. See its log." >&2
      exit 1
    fi
    sleep 1
    waited_s=$((waited_s + 1))
  done
}

"$@" build --quiet
services=$("$@" config --services | grep -E '^(profile-service|ws-gateway)-[0-9]+$' | sort)
for service in $services; do
  "$@" up --detach --no-deps --no-build --force-recreate "$service"
  wait_until_healthy "$("$@" ps --quiet "$service")" "$service"
  echo "$service is replaced and ready"
done
