// Where a subject stands in its prompt, which may have it several times.

interface Placed {
  prompt: string;
  subject: string;
  /** Where it begins, in signs of JavaScript; -1 where it does not occur. */
  at: number;
}

/** Where a subject stands in a prompt: there, if it does, and else where it occurs first. */
export function placed(prompt: string, subject: string, at: number): number {
  if (!subject) return -1;
  return prompt.startsWith(subject, at) ? Math.max(0, Math.trunc(at) || 0) : prompt.indexOf(subject);
}

const utf8 = new TextEncoder();

/** A fact as jobs take it: where its subject begins is said in bytes of UTF-8, unless that is its first place. */
export function fact({ prompt, subject, at }: Placed) {
  const first = at < 0 || at === prompt.indexOf(subject);
  return { prompt, subject, subjectStart: first ? undefined : utf8.encode(prompt.slice(0, at)).length };
}

/** And back. */
export function startOf(fact: { prompt: string; subjectStart?: number } | undefined): number | undefined {
  if (!fact?.subjectStart) return undefined;
  return new TextDecoder().decode(utf8.encode(fact.prompt).subarray(0, fact.subjectStart)).length;
}

/** The template of an edit: the prompt with `{}` in the subject's place. */
export function template({ prompt, subject, at }: Placed): string {
  return at < 0 ? "" : `${prompt.slice(0, at)}{}${prompt.slice(at + subject.length)}`;
}
