/** Moments as people read them, in the browser's language and time zone. */

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const SHORT_WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_AND_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const SHORT_DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "short" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());
const daysAgo = (date, now) => Math.round((midnight(now) - midnight(date)) / 86_400_000);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const clock = (at) => CLOCK.format(new Date(at));
export const exact = (at) => EXACT.format(new Date(at));
export const dayKey = (at) => midnight(new Date(at)).getTime();

/** The name of a day, for the line between two days. */
export function day(at, now = new Date()) {
  const date = new Date(at);
  const ago = daysAgo(date, now);
  if (ago <= 1) return capital(AGO.format(-ago, "day"));
  if (ago < 7) return WEEKDAY.format(date);
  return (date.getFullYear() === now.getFullYear() ? DAY : DAY_AND_YEAR).format(date);
}

/** As short as it can be said, for a list. */
export function brief(at, now = new Date()) {
  const date = new Date(at);
  const ago = daysAgo(date, now);
  if (ago <= 0) return CLOCK.format(date);
  if (ago < 7) return SHORT_WEEKDAY.format(date);
  return (date.getFullYear() === now.getFullYear() ? SHORT_DAY : SHORT_DATE).format(date);
}

/** How long ago somebody was here. */
export function ago(at, now = new Date()) {
  const minutes = Math.max(0, Math.round((now - new Date(at)) / 60_000));
  if (minutes < 1) return "just now";
  if (minutes < 60) return AGO.format(-minutes, "minute");
  if (minutes < 24 * 60) return AGO.format(-Math.round(minutes / 60), "hour");
  const days = daysAgo(new Date(at), now);
  return days < 30 ? AGO.format(-days, "day") : DAY_AND_YEAR.format(new Date(at));
}
