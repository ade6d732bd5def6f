/** Types of duet.js. Frames are as docs/protocol.md has them; unknown fields may be added to them. */

/** RFC 3339 in UTC, with milliseconds. */
export type Timestamp = string;
export type UserId = string;
export type ConversationId = string;

export class DuetError extends Error {
  /** Stable: of the protocol, of a problem of the HTTP API, or `signed_out`, `unreachable`,
   * `disconnected`, `timeout`, `discarded`, `not_kept`. */
  code: string;
  /** Whether the same call may succeed later. */
  retryable: boolean;
  retryAfterMs?: number;
  /** Of an HTTP answer. */
  status?: number;
  title?: string;
  faults?: { pointer: string; detail: string }[];
}

/** A UUIDv7: each sorts after those made before it here. */
export function uuidv7(): string;

/** Where a client keeps its session, its cursor and what is not acknowledged yet. */
export interface Store {
  /** Set when other tabs use the same store. */
  sharedAs?: string;
  get(key: string): Promise<unknown>;
  set(key: string, value: unknown): Promise<void>;
  delete(key: string): Promise<void>;
  /** Everything that was put and not removed, sorted by `id`. */
  entries(): Promise<OutboxEntry[]>;
  /** Resolve when the entry would survive a crash. */
  put(entry: OutboxEntry): Promise<void>;
  remove(id: string): Promise<void>;
}

/** Gone when the process ends. */
export function memoryStore(): Store;
/** IndexedDB, shared by the tabs of an origin. */
export function browserStore(name?: string): Store;
/** One JSON file with mode 0600, for one process of Node.js. */
export function fileStore(path: string): Promise<Store>;

export interface OutboxEntry {
  id: string;
  kind: "send" | "edit" | "delete";
  to?: UserId;
  conversation?: ConversationId;
  seq?: number;
  text?: string;
  user?: UserId;
  /** Milliseconds since the epoch. */
  created_at: number;
  owner: string;
  attempts: number;
  /** Why it will not be tried again by itself. */
  failed?: { code: string; message: string };
}

export interface PublicProfile {
  id: UserId;
  username: string;
  display_name: string | null;
  bio: string | null;
  avatar_url: string | null;
  status_text: string | null;
}

export interface OwnProfile extends PublicProfile {
  locale: string | null;
  timezone: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export interface ProfileFields {
  display_name?: string | null;
  bio?: string | null;
  avatar_url?: string | null;
  status_text?: string | null;
  locale?: string | null;
  timezone?: string | null;
}

export interface Session {
  access_token: string;
  refresh_token: string;
  session_id: string;
  /** Milliseconds since the epoch, by this device's clock. */
  expires_at: number;
  user: { id: UserId; username: string };
}

export interface Device {
  id: string;
  device_name: string | null;
  user_agent: string | null;
  created_at: Timestamp;
  refreshed_at: Timestamp;
  expires_at: Timestamp;
  current: boolean;
}

declare class Emitter<Events> {
  /** Returns the function that takes the listener away. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
  once<Name extends keyof Events>(name: Name): Promise<Events[Name]>;
}

export interface AccountOptions {
  /** Of the profile service, without a path; empty for the page's own origin. */
  url?: string;
  store?: Store;
  fetch?: typeof fetch;
  now?: () => number;
}

/** One logged-in device: its tokens, and the profile service's API. */
export class Account extends Emitter<{ session: Session | null }> {
  constructor(options?: AccountOptions);
  readonly url: string;
  readonly session: Session | null;
  readonly store: Store;
  load(): Promise<Session | null>;
  signUp(
    fields: { username: string; password: string; device_name?: string } & ProfileFields,
  ): Promise<OwnProfile>;
  logIn(fields: { username: string; password: string; device_name?: string }): Promise<OwnProfile>;
  /** With a token of an embedder's own sign-in. */
  logInExternally(fields: { token: string; device_name?: string }): Promise<OwnProfile>;
  logOut(): Promise<void>;
  logOutEverywhere(): Promise<void>;
  me(): Promise<{ profile: OwnProfile; etag: string | null }>;
  updateProfile(
    changes: ProfileFields,
    etag?: string | null,
  ): Promise<{ profile: OwnProfile; etag: string | null }>;
  user(username: string): Promise<PublicProfile>;
  findUsers(
    prefix: string,
    page?: { after?: string; limit?: number },
  ): Promise<{ users: PublicProfile[]; next: string | null }>;
  sessions(): Promise<Device[]>;
  endSession(id: string): Promise<void>;
  changePassword(currentPassword: string, newPassword: string): Promise<void>;
  deleteAccount(password: string): Promise<void>;
  /** `rejected` is a token that was refused, whatever the clock says. */
  accessToken(rejected?: string): Promise<string>;
  call(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; body: any; headers: Headers }>;
  forget(options?: { outboxToo?: boolean }): Promise<void>;
  close(): void;
}

export interface MessageItem {
  conversation: ConversationId;
  seq: number;
  from: UserId;
  text: string;
  sent_at: Timestamp;
  revision?: number;
  edited_at?: Timestamp;
  deleted?: boolean;
}

export interface Message extends MessageItem {
  to: UserId;
  cursor: string;
  /** Only of own messages. */
  id?: string;
}

export interface Ack {
  id: string;
  conversation: ConversationId;
  seq: number;
  sent_at: Timestamp;
  duplicate: boolean;
  revision?: number;
}

export interface ConversationItem {
  conversation: ConversationId;
  peer: { id: UserId; username?: string; online?: boolean; last_seen?: Timestamp };
  last_message: MessageItem;
  unread: number;
  received: number;
  read: number;
  peer_received: number;
  peer_read?: number;
}

export type Place = { conversation: ConversationId; seq: number };

export interface DuetEvents {
  state: {
    state: "connecting" | "open" | "waiting" | "ended";
    /** With `ended`: `signed_out`, `refused`, `evicted`, `fault` or `stopped`. */
    reason?: string;
    /** With `waiting`: milliseconds since the epoch. */
    retryAt?: number;
    error?: DuetError;
  };
  live: { fresh: boolean };
  message: Message;
  edited: Place & { from: UserId; text: string; revision: number; edited_at: Timestamp; cursor: string };
  deleted: Place & { from: UserId; revision: number; deleted_at: Timestamp; cursor: string };
  erased: { conversation: ConversationId; user: UserId; cursor: string };
  receipt: { conversation: ConversationId; user: UserId; received: number; read?: number };
  typing: { from: UserId; active: boolean; expires_in_ms: number };
  presence: { user: UserId; online: boolean; last_seen?: Timestamp };
  /** Another device set something: ask for `blocks` or `preferences` again. Ask when `live`, too. */
  changed: { what: string };
  resync: { cursor: string };
  queued: { entry: OutboxEntry };
  acked: { entry: OutboxEntry; ack: Ack };
  failed: { entry: OutboxEntry; error: DuetError };
  discarded: { entry: OutboxEntry };
}

export interface DuetOptions {
  /** Of the gateway: `wss://chat.example.org/v1/ws`. */
  url: string;
  account: Account;
  /** The account's, unless another one is given. */
  store?: Store;
  /** Needed where there is no global one: Node.js before 22. */
  WebSocket?: unknown;
  /** Mark every message as received once its listeners have run. Default: true. */
  autoReceived?: boolean;
  /** Keep the cursor in the store: the next start hears what it missed, at least once. Default: false. */
  rememberCursor?: boolean;
  backoffBaseMs?: number;
  backoffMaxMs?: number;
  answerTimeoutMs?: number;
  now?: () => number;
  random?: () => number;
}

/** A connection that comes back, and an outbox that empties itself. */
export class Duet extends Emitter<DuetEvents> {
  constructor(options: DuetOptions);
  readonly url: string;
  readonly state: "idle" | "connecting" | "open" | "waiting" | "ended";
  readonly user: { id: UserId; username: string } | null;
  readonly limits: {
    max_text_characters: number;
    max_frame_bytes: number;
    max_connections: number;
    messages_per_s: number;
    message_burst: number;
  } | null;
  readonly cursor: string | null;
  readonly isLive: boolean;
  start(): Promise<void>;
  stop(): Promise<void>;
  reconnect(): void;
  probe(): Promise<void>;

  /** Stays pending offline; rejects with `signed_out` once a log-out has emptied the outbox. */
  send(to: UserId, text: string, options?: { id?: string }): Promise<Ack>;
  edit(message: Place, text: string, options?: { id?: string }): Promise<Ack>;
  delete(message: Place, options?: { id?: string }): Promise<Ack>;
  outbox(to?: UserId): OutboxEntry[];
  retry(id: string): Promise<void>;
  discard(id: string): Promise<boolean>;

  history(
    peer: UserId,
    page?: { before?: number; after?: number; limit?: number },
  ): Promise<{ conversation: ConversationId; messages: MessageItem[]; more: boolean }>;
  conversations(page?: {
    after?: string;
    limit?: number;
  }): Promise<{ items: ConversationItem[]; next?: string }>;
  search(
    query: string,
    page?: { peer?: UserId; after?: string; limit?: number },
  ): Promise<{
    items: { message: MessageItem; peer: UserId; snippet: string }[];
    complete: boolean;
    next?: string;
  }>;
  trace(message: Place): Promise<{
    stored_at: Timestamp;
    delivered_to_connections?: number;
    delivered_at?: Timestamp;
    received_at?: Timestamp;
    read_at?: Timestamp;
  }>;
  block(user: UserId): Promise<unknown>;
  unblock(user: UserId): Promise<unknown>;
  blocks(): Promise<UserId[]>;
  preferences(changes?: {
    share_reads?: boolean;
    share_presence?: boolean;
  }): Promise<{ share_reads: boolean; share_presence: boolean }>;
  export(onLines: (lines: string) => void): Promise<{ messages: number }>;
  ask(frame: { type: string; [field: string]: unknown }, timeoutMs?: number): Promise<any>;

  markReceived(conversation: ConversationId, seq: number): void;
  markRead(conversation: ConversationId, seq: number): void;
  typing(to: UserId, active?: boolean): void;
}
