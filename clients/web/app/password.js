/** A quick guess at how guessable a password is, while it is typed. The server has the last word. */

const COMMON = (
  "password passwort passw0rd qwerty qwertz azerty asdf letmein welcome admin login monkey dragon " +
  "football baseball iloveyou princess sunshine master shadow superman batman trustno1 hello " +
  "freedom whatever starwars summer winter spring autumn secret abc123 google facebook computer " +
  "internet chat duet love money jordan michael jennifer daniel ashley charlie test guest pass"
).split(" ");
const ROWS = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];
export const MIN_CHARACTERS = 8;
export const WORDS = ["Too short", "Easy to guess", "Could be better", "Good", "Strong"];

/** Judge a password: `{score: 0…4, hint}`; 3 is what the server wants. `about` are the person's words. */
export function judge(password, about = []) {
  const length = [...password].length;
  if (length < MIN_CHARACTERS) {
    return { score: 0, hint: `Use at least ${MIN_CHARACTERS} characters. A few unrelated words work well.` };
  }
  const repeated = /^(.{1,40}?)\1+$/su.exec(password);
  if (repeated && repeated[1].length > 1) {
    return { score: 1, hint: "Saying the same thing twice does not make it harder to guess." };
  }
  const plain = password.toLowerCase().replace(/[@40135$7]/g, (c) => LOOKALIKES[c] ?? c);
  const known = [...about.filter((word) => word.length > 2).map((word) => word.toLowerCase()), ...COMMON];
  let rest = plain;
  let guesses = 0; // powers of ten
  let hint = "";
  for (const word of known) {
    if (word.length < 4 && !about.includes(word)) continue;
    while (rest.includes(word)) {
      rest = rest.replace(word, "\u0000");
      guesses += 2;
      hint ||= about.some((own) => own.toLowerCase() === word)
        ? "Leave out your own name."
        : `“${word}” is among the first things that are tried.`;
    }
  }
  for (const run of runsOf(rest)) {
    rest = rest.replace(run, "\u0000");
    guesses += 1.5;
    hint ||= "Rows of keys and repeated characters are easy to guess.";
  }
  const left = [...rest.replaceAll("\u0000", "")];
  guesses += Math.min(left.length, new Set(left).size * 1.6) * perCharacter(password);
  const score = guesses >= 11 ? 4 : guesses >= 9 ? 3 : guesses >= 6.5 ? 2 : 1;
  if (score < 3) hint ||= "Add a word or two that have nothing to do with each other.";
  return { score, hint: score < 3 ? hint : "" };
}

const LOOKALIKES = { "@": "a", 4: "a", 0: "o", 1: "l", 3: "e", 5: "s", $: "s", 7: "t" };

function perCharacter(password) {
  const classes = [/[a-z]/, /[A-Z]/, /\d/, /[^A-Za-z\d]/].filter((kind) => kind.test(password)).length;
  return 0.72 + 0.14 * classes;
}

/** Stretches of three or more that follow each other on a keyboard, in the alphabet, or repeat. */
function* runsOf(text) {
  const follows = (a, b) =>
    a === b || ROWS.some((row) => row.includes(a + b) || row.includes(b + a));
  let start = 0;
  for (let i = 1; i <= text.length; i++) {
    if (i < text.length && text[i] !== "\u0000" && follows(text[i - 1], text[i])) continue;
    if (i - start >= 3) yield text.slice(start, i);
    start = i;
  }
}
