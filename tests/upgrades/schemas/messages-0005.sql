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
INSERT INTO "_yoyo_migration" VALUES('49b718123d7ef82b8e606bc25bc7bf1ce0717844f2d1c8b03804828f1dcb295d','0001.conversations','2026-11-29T14:43:28.889215');
INSERT INTO "_yoyo_migration" VALUES('f0d937d017732c7990bbce55c8512f724c9a91618b63135acbd3d69ee1532163','0002.attendance','2026-11-29T14:43:28.891847');
INSERT INTO "_yoyo_migration" VALUES('7013d1315232b0c753d2c2739fc7277c4acd52ca174019a6df46cb8771d9cefe','0003.forgetting','2026-11-29T14:43:28.895175');
INSERT INTO "_yoyo_migration" VALUES('8cd57f4cb09c8c85b4222895abd5094a59282c5fba01fc2a63453a21ef7a5da1','0004.deliveries-together','2026-11-29T14:43:28.898386');
INSERT INTO "_yoyo_migration" VALUES('e8c8e620ca416c9cfaf77a5cc3df76660536ec1b72d9b398262e5ab6e1444849','0005.search-merges','2026-11-29T14:43:28.901635');
CREATE TABLE "_yoyo_version" (
            "version" INT NOT NULL PRIMARY KEY,
            "installed_at_utc" TIMESTAMP
        );
INSERT INTO "_yoyo_version" VALUES(2,'2026-11-29 14:43:28.866837');
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
    indexed INTEGER NOT NULL DEFAULT 0,
    feed_event_id TEXT
, forgetting INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "life" VALUES(1,'8904fdb1b25b',7,7,'12',1);
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
CREATE TABLE revisions (
    position INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    message INTEGER,
    kind INTEGER NOT NULL,
    actor INTEGER NOT NULL
) STRICT;
INSERT INTO "revisions" VALUES(6,1,3,1,1);
INSERT INTO "revisions" VALUES(7,1,2,2,1);
PRAGMA writable_schema=ON;
INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql)VALUES('table','search','search',0,'CREATE VIRTUAL TABLE search USING fts5 (
    people, text, content = ''searchable'', content_rowid = ''position'',
    tokenize = ''unicode61 remove_diacritics 2''
)');
CREATE TABLE 'search_config'(k PRIMARY KEY, v) WITHOUT ROWID;
INSERT INTO "search_config" VALUES('automerge',0);
INSERT INTO "search_config" VALUES('version',4);
CREATE TABLE 'search_data'(id INTEGER PRIMARY KEY, block BLOB);
INSERT INTO "search_data" VALUES(1,X'040807');
INSERT INTO "search_data" VALUES(10,X'000000010103000003010101020101030101');
INSERT INTO "search_data" VALUES(137438953473,X'000000870330616E040601010203047377657204060101030104656C73650506010103010568656C6C6F010601010201036F6C6403060101020106736563726574020601010202076F6D65626F6479050601010201047465787403060101030102753101020201020201020201020201020202013201020301020301020301020302013305020304090B0B0C0A0D0E0B130F');
INSERT INTO "search_data" VALUES(274877906945,X'0000002D04306E6577030601010201036F6C640301010474657874030701010301027531030302020132030303040A070B07');
INSERT INTO "search_data" VALUES(412316860417,X'00000019073073656372657402010102753102010201320201040A06');
CREATE TABLE 'search_docsize'(id INTEGER PRIMARY KEY, sz BLOB);
INSERT INTO "search_docsize" VALUES(1,X'0201');
INSERT INTO "search_docsize" VALUES(3,X'0202');
INSERT INTO "search_docsize" VALUES(4,X'0202');
INSERT INTO "search_docsize" VALUES(5,X'0202');
CREATE TABLE 'search_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;
INSERT INTO "search_idx" VALUES(1,X'',2);
INSERT INTO "search_idx" VALUES(2,X'',2);
INSERT INTO "search_idx" VALUES(3,X'',2);
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
CREATE VIEW searchable AS
SELECT messages.position AS position,
       'u' || conversations.low || ' u' || conversations.high AS people,
       messages.text AS text
FROM messages JOIN conversations ON conversations.key = messages.conversation
WHERE NOT messages.deleted;
PRAGMA writable_schema=OFF;
COMMIT;
