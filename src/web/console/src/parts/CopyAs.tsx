// What is seen, as a command, as Python and as JSON: the console has nothing that the others have not.

import { useState } from "preact/hooks";

import { json } from "../download";

export interface Copied {
  command?: string;
  python?: string;
  json?: () => unknown;
}

export function CopyAs({ command, python, json: object }: Copied) {
  const [said, setSaid] = useState("");
  const [shown, setShown] = useState(false);
  const copy = async (text: string, what: string) => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid(`${what} copied`);
    } catch {
      setSaid("The browser does not let this page copy: mark the text.");
    }
  };
  const lines: [string, string][] = [];
  if (command) lines.push(["Command", command]);
  if (python) lines.push(["Python", python]);
  return (
    <details class="menu" onToggle={(event) => setShown(event.currentTarget.open)}>
      <summary>Copy as</summary>
      {shown && (
        <div class="copy">
          {lines.map(([what, text]) => (
            <div>
              <button type="button" onClick={() => void copy(text, what)}>
                {what}
              </button>
              <pre tabIndex={0} aria-label={what}>
                {text}
              </pre>
            </div>
          ))}
          {object && (
            <div>
              <button type="button" onClick={() => void copy(json(object()), "JSON")}>
                JSON
              </button>
            </div>
          )}
          <p role="status" class="quiet">
            {said}
          </p>
        </div>
      )}
    </details>
  );
}
