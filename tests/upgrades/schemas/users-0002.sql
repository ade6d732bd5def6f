BEGIN TRANSACTION;
CREATE TABLE "_yoyo_log" (
            "id" VARCHAR(36),
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "operation" VARCHAR(10),
            "username" VARCHAR(255),
            "hostname" VARCHAR(255),
            "comment" VARCHAR(255),
            "created_at_utc" TIMESTAMP,
            PRIMARY KEY ("id")
        );
CREATE TABLE "_yoyo_migration" (
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "applied_at_utc" TIMESTAMP,
            PRIMARY KEY ("migration_hash")
        );
INSERT INTO "_yoyo_migration" VALUES('f76703d6e8bd1fe35324264cbecc15a40a7dfa8a6cc6ae55f01d647c5e7054b2','0001.initial','2026-11-24T05:42:51.948334');
INSERT INTO "_yoyo_migration" VALUES('b63854e66ec1008ca43c0a6015d0101e1c10b89cbc9c273d3e1c189e702ab0f7','0002.external-identities','2026-11-24T05:42:51.950822');
CREATE TABLE "_yoyo_version" (
            "version" INT NOT NULL PRIMARY KEY,
            "installed_at_utc" TIMESTAMP
        );
INSERT INTO "_yoyo_version" VALUES(2,'2026-11-24T05:42:51.941721');
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    address TEXT,
    detail TEXT
) STRICT;
INSERT INTO "audit" VALUES(1,1795498972030,'sign_up','u_zj5odizgeng43om3ipx6hswkqm','s_km7aypkkcx73qpn7a42sbhxyne','127.0.0.1',NULL);
INSERT INTO "audit" VALUES(2,1795498972035,'sign_up','u_s7fqhwkzwps6d4d5n4fopwmyui','s_qp2jscbjae7g7el5fznvu7pqde','127.0.0.1',NULL);
INSERT INTO "audit" VALUES(3,1795498972038,'login','u_zj5odizgeng43om3ipx6hswkqm','s_h4yeh72yys4cjx3ycnfc3xjw74','127.0.0.1',NULL);
CREATE TABLE epoch (value TEXT NOT NULL) STRICT;
INSERT INTO "epoch" VALUES('fd027bd4c9c60f1f');
CREATE TABLE external_identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE revocations (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    nonce TEXT NOT NULL,             -- so that a position of a lost timeline is not mistaken for this
    at_ms INTEGER NOT NULL,
    event TEXT NOT NULL              -- JSON
) STRICT;
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    device_name TEXT,
    user_agent TEXT,
    generation INTEGER NOT NULL,
    confirmed_generation INTEGER NOT NULL,
    rotated_at_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "sessions" VALUES('s_h4yeh72yys4cjx3ycnfc3xjw74','u_zj5odizgeng43om3ipx6hswkqm','phone','python-httpx/0.28.1',1,1,1795498972038,1795498972038,1798090972038,NULL);
INSERT INTO "sessions" VALUES('s_km7aypkkcx73qpn7a42sbhxyne','u_zj5odizgeng43om3ipx6hswkqm',NULL,'python-httpx/0.28.1',1,0,1795498972030,1795498972030,1798090972030,NULL);
INSERT INTO "sessions" VALUES('s_qp2jscbjae7g7el5fznvu7pqde','u_s7fqhwkzwps6d4d5n4fopwmyui',NULL,'python-httpx/0.28.1',1,0,1795498972035,1795498972035,1798090972035,NULL);
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    canonical_username TEXT NOT NULL UNIQUE,
    password_hash TEXT,              -- NULL once deleted: the row stays, so the name stays taken
    token_version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    profile TEXT NOT NULL,           -- JSON
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "users" VALUES('u_s7fqhwkzwps6d4d5n4fopwmyui','bob','bob','$argon2id$v=19$m=8,t=1,p=1$5didbTmiDWdxbT4FyaxbIA$ddhhWMy3CidNPw8Fgz1Fld5+GtAwsjuMwX/lfBlM+ls',1,1,'{"display_name":null,"bio":null,"avatar_url":null,"status_text":null,"locale":null,"timezone":null}',1795498972035,1795498972035,NULL);
INSERT INTO "users" VALUES('u_zj5odizgeng43om3ipx6hswkqm','Ann','ann','$argon2id$v=19$m=8,t=1,p=1$fz4xZsAUHojByU1sdg4tBw$0Ja7K/xCASWxxjnLS+qDIRuXY19KdtsEcjtv7nzCKEY',1,2,'{"display_name":null,"bio":"here since then","avatar_url":null,"status_text":null,"locale":null,"timezone":null}',1795498972030,1795498972040,NULL);
CREATE TABLE "yoyo_lock" ("locked" INT DEFAULT 1, "ctime" TIMESTAMP,"pid" INT NOT NULL,PRIMARY KEY ("locked"));
CREATE INDEX sessions_by_user ON sessions (user_id, created_at_ms) WHERE ended_at_ms IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);
CREATE INDEX audit_by_user ON audit (user_id, at_ms);
CREATE INDEX audit_by_time ON audit (at_ms);
CREATE INDEX external_identities_by_user ON external_identities (user_id);
DELETE FROM "sqlite_sequence";
COMMIT;
