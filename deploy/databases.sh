#!/bin/sh
# Makes a database and a role for each service; changes nothing that is there, except passwords.
# Environment: that of psql for a superuser (PGHOST, PGUSER, PGPASSWORD), and the two passwords.
set -eu

make_database() {
  # The password is no argument of psql: everybody on the machine reads those.
  password=$2 psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$1" postgres <<'SQL'
\set password `printf %s "$password"`
SELECT format('CREATE ROLE %I LOGIN', :'name')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" PASSWORD :'password';
-- By code point, whatever the server's locale is: indexes stay good when its C library is upgraded.
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8'' LOCALE ''C.UTF-8''',
              :'name', :'name')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

make_database duet_profile "$DUET_PROFILE_DATABASE_PASSWORD"
make_database duet_gateway "$DUET_GATEWAY_DATABASE_PASSWORD"
