// Small things that every page uses: what went wrong, what is waited for, tabs, buttons by right.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";

import { EXPLAINED } from "../../contract/explained";
import type { Problem } from "../client";
import { may, whoAmI } from "../may";
import { asked, came, setQuery } from "../route";

/** What went wrong, in the server's words. */
export function Wrong({ of }: { of: Problem | undefined }) {
  if (!of) return null;
  // Of one field the message says it all.
  const fields = of.fields.filter((field) => !of.message.includes(field.problem));
  return (
    <div class="wrong" role="alert">
      <p>{of.message}</p>
      {fields.length > 0 && (
        <ul>
          {fields.map((field) => (
            <li>
              <code>{field.name}</code>: {field.problem}
            </li>
          ))}
        </ul>
      )}
      {EXPLAINED.includes(of.reason) && (
        <p>
          <a href={`/help.html#${of.reason}`}>What helps with {of.reason}</a>
        </p>
      )}
    </div>
  );
}

/** A page or a part of one while it comes, or why it does not. */
export function Waiting({
  of,
  what,
}: {
  of: { loading: boolean; problem: Problem | undefined; data: unknown };
  what: string;
}) {
  if (of.problem) return <Wrong of={of.problem} />;
  if (of.loading && of.data === undefined) return <p class="quiet">Reading {what}…</p>;
  return null;
}

/** The page's heading: the focus goes to it when a link leads here, as it would with a page of its own. */
export function Heading({ children, title }: { children: ComponentChildren; title: string }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Palimpsest`;
    if (came.byLink) heading.current?.focus({ preventScroll: true });
  }, [title]);
  return (
    <h1 ref={heading} tabIndex={-1}>
      {children}
    </h1>
  );
}

interface ActProps {
  /** What it calls, `Service/Method`: it is drawn only for those who may. */
  method: string;
  onClick: () => void;
  children: ComponentChildren;
  disabled?: boolean;
  kind?: "main" | "danger";
  label?: string;
}

/** A button that changes something. Who may not call its method does not see it; the server refuses all the same. */
export function Act({ method, onClick, children, disabled, kind, label }: ActProps) {
  if (!may(method)) return null;
  return (
    <button
      type="button"
      class={kind ?? ""}
      data-method={method}
      disabled={disabled}
      onClick={onClick}
      aria-label={label}
    >
      {children}
    </button>
  );
}

/** One line in the place of what a caller may not do. */
export function Quiet({ method, what }: { method: string; what: string }) {
  if (may(method)) return null;
  return (
    <p class="quiet">
      {whoAmI()}, who may not {what}.
    </p>
  );
}

/** Tabs over parts of a page; which one is open is in the address. */
export function Tabs({
  name,
  tabs,
  label,
}: {
  name: string;
  label: string;
  tabs: { id: string; title: string; body: () => ComponentChildren }[];
}) {
  const first = tabs[0]?.id ?? "";
  const wanted = asked(name, first);
  const open = tabs.find((tab) => tab.id === wanted) ?? tabs[0];
  const list = useRef<HTMLDivElement>(null);
  const choose = (id: string) => setQuery({ [name]: id === first ? undefined : id });
  const keys = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = (tabs.findIndex((tab) => tab === open) + step + tabs.length) % tabs.length;
    choose(tabs[at]?.id ?? first);
    (list.current?.children[at] as HTMLElement | undefined)?.focus();
  };
  return (
    <>
      <div class="tabs" role="tablist" aria-label={label} ref={list} onKeyDown={keys}>
        {tabs.map((tab) => (
          <button
            type="button"
            role="tab"
            id={`${name}-${tab.id}`}
            aria-selected={tab === open}
            aria-controls={`${name}-panel`}
            tabIndex={tab === open ? 0 : -1}
            onClick={() => choose(tab.id)}
          >
            {tab.title}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${name}-panel`} aria-labelledby={`${name}-${open?.id}`}>
        {open?.body()}
      </div>
    </>
  );
}

/** A choice of few. */
export function Choice<T extends string>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
        {options.map(([id, text]) => (
          <option value={id} selected={id === value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A text to fill in; `onChange` comes when it is left or Enter is pressed, `onInput` with every key. */
export function Text({
  label,
  value,
  onChange,
  onInput,
  rows,
  placeholder,
  hint,
  ...rest
}: {
  label: string;
  value: string;
  onChange?: (value: string) => void;
  onInput?: (value: string) => void;
  rows?: number;
  placeholder?: string;
  hint?: string;
  inputMode?: "numeric";
  required?: boolean;
}) {
  const id = useId();
  const common = {
    value,
    placeholder,
    "aria-describedby": hint ? id : undefined,
    onChange: (event: { currentTarget: { value: string } }) => onChange?.(event.currentTarget.value),
    onInput: (event: { currentTarget: { value: string } }) => onInput?.(event.currentTarget.value),
  };
  return (
    <div class="field">
      <label>
        <span>{label}</span>
        {rows ? (
          <textarea rows={rows} {...common} />
        ) : (
          <input type="text" autocomplete="off" spellcheck={false} {...common} {...rest} />
        )}
      </label>
      {hint && <small id={id}>{hint}</small>}
    </div>
  );
}

/** A bar of what is done, as words too. */
export function Bar({ done, failed, of, label }: { done: number; failed?: number; of: number; label: string }) {
  const part = (n: number) => `${of > 0 ? (100 * n) / of : 0}%`;
  return (
    <span class="bar" role="img" aria-label={label} title={label}>
      <span class="bar-done" style={{ width: part(done - (failed ?? 0)) }} />
      {failed ? <span class="bar-failed" style={{ width: part(failed) }} /> : null}
    </span>
  );
}

/** The width that a part has, for figures that are drawn for it; measured from when it is there. */
export function useWidth(): [(element: HTMLDivElement | null) => void, number] {
  const [box, setBox] = useState<HTMLDivElement | null>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!box) return undefined;
    const measure = () => setWidth(Math.floor(box.getBoundingClientRect().width));
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(box);
    return () => watch.disconnect();
  }, [box]);
  return [setBox, width];
}

/** Names and values. */
export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {of
        .filter(([, value]) => value !== undefined && value !== "" && value !== null)
        .map(([name, value]) => (
          <div>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
