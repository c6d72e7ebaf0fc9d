// One dialog for every change: what will happen, why, and the button that does it.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { Code, type Problem } from "../client";
import { useDoing } from "../live";
import { Act, Text, Wrong } from "./common";

export interface Asked {
  title: string;
  body: ComponentChildren;
  /** What the button says and the method that it calls. */
  action: string;
  method: string;
  /** Whether the reason is asked for: it is kept in the audit log. */
  why?: boolean;
  /** Another text that is needed, such as a name. */
  text?: { label: string; value: string; hint?: string };
  danger?: boolean;
  run: (given: { why: string; text: string }) => Promise<void>;
  /** What to do when somebody was faster. */
  onMoved?: (problem: Problem) => void;
}

const question = signal<Asked | undefined>(undefined);

/** Asks before something is changed. */
export function ask(what: Asked): void {
  question.value = what;
}

export function Confirm() {
  const asked = question.value;
  return asked ? <Dialog key={asked.title} asked={asked} /> : null;
}

function Dialog({ asked }: { asked: Asked }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [why, setWhy] = useState("");
  const [text, setText] = useState(asked.text?.value ?? "");
  const doing = useDoing();
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => before?.focus?.();
  }, []);
  useEffect(() => {
    if (doing.problem?.code === Code.Aborted && asked.onMoved) {
      question.value = undefined;
      asked.onMoved(doing.problem);
    }
  }, [doing.problem]);
  const close = () => {
    question.value = undefined;
  };
  const disabled = doing.busy || (asked.text !== undefined && text === "");
  const run = () =>
    doing.run(async () => {
      await asked.run({ why, text });
      close();
    });
  return (
    <dialog
      ref={dialog}
      aria-labelledby="question"
      onClose={close}
      onCancel={close}
      onKeyDown={(event) => {
        if (event.key === "Enter" && event.target instanceof HTMLInputElement && !disabled) void run();
      }}
    >
      <h2 id="question">{asked.title}</h2>
      <div>{asked.body}</div>
      {asked.text && <Text label={asked.text.label} value={text} onInput={setText} hint={asked.text.hint} />}
      {asked.why && <Text label="Why" value={why} onInput={setWhy} hint="Kept in the audit log." />}
      <Wrong of={doing.problem} />
      <p class="buttons">
        <Act
          method={asked.method}
          kind={asked.danger ? "danger" : "main"}
          disabled={disabled}
          onClick={() => void run()}
        >
          {doing.busy ? "…" : asked.action}
        </Act>
        <button type="button" onClick={close}>
          Leave it
        </button>
      </p>
    </dialog>
  );
}
