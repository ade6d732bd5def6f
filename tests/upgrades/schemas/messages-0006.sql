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
INSERT INTO "_yoyo_migration" VALUES('49b718123d7ef82b8e606bc25bc7bf1ce0717844f2d1c8b03804828f1dcb295d','0001.conversations','2026-11-30 04:11:38.704685');
INSERT INTO "_yoyo_migration" VALUES('f0d937d017732c7990bbce55c8512f724c9a91618b63135acbd3d69ee1532163','0002.attendance','2026-11-30 04:11:38.707084');
INSERT INTO "_yoyo_migration" VALUES('7013d1315232b0c753d2c2739fc7277c4acd52ca174019a6df46cb8771d9cefe','0003.forgetting','2026-11-30 04:11:38.709372');
INSERT INTO "_yoyo_migration" VALUES('8cd57f4cb09c8c85b4222895abd5094a59282c5fba01fc2a63453a21ef7a5da1','0004.deliveries-together','2026-11-30 04:11:38.711359');
INSERT INTO "_yoyo_migration" VALUES('e8c8e620ca416c9cfaf77a5cc3df76660536ec1b72d9b398262e5ab6e1444849','0005.search-merges','2026-11-30 04:11:38.713171');
INSERT INTO "_yoyo_migration" VALUES('c9dcf48174ddcd52dc19fc37596796661553262f1fd6338aaf13b286137f59e0','0006.search-apart','2026-11-30 04:11:38.717747');
CREATE TABLE "_yoyo_version" (
            "version" INT NOT NULL PRIMARY KEY,
            "installed_at_utc" TIMESTAMP
        );
INSERT INTO "_yoyo_version" VALUES(2,'2026-11-30 04:11:38.678178');
CREATE TABLE blocks (
    blocker INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;
INSERT INTO "blocks" VALUES(1,3,6);
CREATE TABLE changes (
    request_id TEXT NOT NULL,
    author INTEGER NOT NULL,
    position INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (request_id, author)
) STRICT, WITHOUT ROWID;
INSERT INTO "changes" VALUES('delete',1,7,1);
INSERT INTO "changes" VALUES('edit',1,6,1);
CREATE TABLE conversations (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    low INTEGER NOT NULL REFERENCES users (key),
    high INTEGER NOT NULL REFERENCES users (key)
) STRICT;
INSERT INTO "conversations" VALUES(1,'c_jzmx47ai7pkrjedqojrfjsyu6y',1,2);
INSERT INTO "conversations" VALUES(2,'c_wj7sgpudybdu7anwtksgorwqu4',1,3);
CREATE TABLE deliveries (
    position INTEGER PRIMARY KEY,
    connections INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
, messages INTEGER NOT NULL DEFAULT 1) STRICT;
INSERT INTO "deliveries" VALUES(1,2,5,1);
CREATE TABLE erasures (
    user_id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE inbox (
    user INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (user, position)
) STRICT, WITHOUT ROWID;
INSERT INTO "inbox" VALUES(1,1);
INSERT INTO "inbox" VALUES(1,2);
INSERT INTO "inbox" VALUES(1,3);
INSERT INTO "inbox" VALUES(1,4);
INSERT INTO "inbox" VALUES(1,5);
INSERT INTO "inbox" VALUES(1,6);
INSERT INTO "inbox" VALUES(1,7);
INSERT INTO "inbox" VALUES(2,1);
INSERT INTO "inbox" VALUES(2,2);
INSERT INTO "inbox" VALUES(2,3);
INSERT INTO "inbox" VALUES(2,4);
INSERT INTO "inbox" VALUES(2,6);
INSERT INTO "inbox" VALUES(2,7);
INSERT INTO "inbox" VALUES(3,5);
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    feed_event_id TEXT
) STRICT;
INSERT INTO "life" VALUES(1,'49e92eb836ba',7,'12');
CREATE TABLE marks (
    conversation INTEGER NOT NULL,
    user INTEGER NOT NULL,
    read INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (conversation, user, read, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "marks" VALUES(1,2,0,1,3);
INSERT INTO "marks" VALUES(1,2,1,1,3);
CREATE TABLE members (
    user INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    last_position INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    received INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0,
    marks_position INTEGER NOT NULL DEFAULT 0,
    received_position INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, conversation)
) STRICT, WITHOUT ROWID;
INSERT INTO "members" VALUES(1,1,2,4,4,0,0,0,0);
INSERT INTO "members" VALUES(1,2,3,5,1,0,0,0,0);
INSERT INTO "members" VALUES(2,1,1,4,4,1,1,7,7);
INSERT INTO "members" VALUES(3,2,1,5,1,0,0,0,0);
CREATE TABLE messages (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    low_count INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    changed_at_ms INTEGER,
    deleted INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
INSERT INTO "messages" VALUES(1,1,1,1,1,'said-0',1,0,NULL,0,'hello');
INSERT INTO "messages" VALUES(2,1,2,1,2,'said-1',1,1,2,1,'');
INSERT INTO "messages" VALUES(3,1,3,1,3,'said-2',1,1,2,0,'new text');
INSERT INTO "messages" VALUES(4,1,4,2,3,'said-3',2,0,NULL,0,'an answer');
INSERT INTO "messages" VALUES(5,2,1,3,0,'said-4',3,0,NULL,0,'somebody else');
CREATE TABLE places (
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "places" VALUES(1,1,1);
INSERT INTO "places" VALUES(1,2,2);
INSERT INTO "places" VALUES(1,3,3);
INSERT INTO "places" VALUES(1,4,4);
INSERT INTO "places" VALUES(2,1,5);
CREATE TABLE removals (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    position INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE TABLE revisions (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    message INTEGER,
    kind INTEGER NOT NULL,
    actor INTEGER NOT NULL
) STRICT;
INSERT INTO "revisions" VALUES(6,1,3,1,1);
INSERT INTO "revisions" VALUES(7,1,2,2,1);
CREATE TABLE users (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    last_seen_ms INTEGER,
    shares_reads INTEGER NOT NULL DEFAULT 1,
    shares_presence INTEGER NOT NULL DEFAULT 1
) STRICT;
INSERT INTO "users" VALUES(1,'u_ann',NULL,1,1);
INSERT INTO "users" VALUES(2,'u_bob',NULL,1,1);
INSERT INTO "users" VALUES(3,'u_cid',NULL,1,1);
CREATE TABLE "yoyo_lock" ("locked" INT DEFAULT 1, "ctime" TIMESTAMP,"pid" INT NOT NULL,PRIMARY KEY ("locked"));
CREATE UNIQUE INDEX messages_by_client_id ON messages (client_id, sender);
CREATE INDEX members_by_recency ON members (user, last_position);
CREATE INDEX removals_by_position ON removals (position, key);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('removals',2);
COMMIT;
