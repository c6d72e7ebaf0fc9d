// The console: one page that draws itself by its address.

import { render } from "preact";
import { Component, type ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import { kept, problem, type Problem } from "./client";
import { lost } from "./live";
import { begin, door, may, now, session, signIn, signOut } from "./may";
import { Audit } from "./pages/Audit";
import { Compare } from "./pages/Compare";
import { Diff } from "./pages/Diff";
import { EditPage } from "./pages/Edit";
import { History } from "./pages/History";
import { JobPage } from "./pages/Job";
import { Jobs } from "./pages/Jobs";
import { Model } from "./pages/Model";
import { Models } from "./pages/Models";
import { Overview } from "./pages/Overview";
import { Playground } from "./pages/Playground";
import { Results } from "./pages/Results";
import { VersionPage } from "./pages/Version";
import { Workers } from "./pages/Workers";
import { Heading, Wrong } from "./parts/common";
import { Confirm } from "./parts/Confirm";
import { follow, match, place } from "./route";

const ROUTES: [string, (...parts: string[]) => ComponentChildren][] = [
  ["/", () => <Overview />],
  ["/jobs", () => <Jobs />],
  ["/jobs/:job", (job) => <JobPage id={job ?? ""} />],
  ["/jobs/:job/results", (job) => <Results id={job ?? ""} />],
  ["/compare", () => <Compare />],
  ["/models", () => <Models />],
  ["/models/:model", (model) => <Model model={model ?? ""} />],
  ["/models/:model/history", (model) => <History model={model ?? ""} />],
  ["/models/:model/versions/:version", (model, version) => <VersionPage model={model ?? ""} version={version ?? ""} />],
  ["/models/:model/edits/:edit", (model, edit) => <EditPage model={model ?? ""} edit={edit ?? ""} />],
  ["/models/:model/diff", (model) => <Diff model={model ?? ""} />],
  ["/playground", () => <Playground />],
  ["/workers", () => <Workers />],
  ["/audit", () => <Audit />],
];

const NAVIGATION = [
  ["/", "Overview"],
  ["/jobs", "Jobs"],
  ["/models", "Models"],
  ["/playground", "Playground"],
  ["/workers", "Workers"],
  ["/audit", "Audit"],
  ["/help.html", "Help"],
] as const;

function Page() {
  const { path } = place.value;
  if (path === "/help") location.replace("/help.html");
  for (const [pattern, draw] of ROUTES) {
    const parts = match(pattern, path);
    if (parts) return <Held key={path}>{draw(...parts)}</Held>;
  }
  return (
    <>
      <Heading title="Not found">There is no such page</Heading>
      <p>
        Nothing is at <code>{path}</code>. <a href="/">Overview</a>
      </p>
    </>
  );
}

/** A mistake in a page leaves the others as they are. */
class Held extends Component<{ children: ComponentChildren }, { said: string }> {
  override state = { said: "" };

  override componentDidCatch(error: unknown) {
    console.error(error);
    this.setState({ said: String(error) });
  }

  render() {
    if (!this.state.said) return this.props.children;
    return (
      <div class="wrong" role="alert">
        <p>This page could not be drawn: {this.state.said}</p>
        <p>That is a mistake in the console. The commands show the same.</p>
      </div>
    );
  }
}

function Who() {
  const caller = now.value?.caller;
  if (!caller) return null;
  return (
    <p class="who" id="who">
      <span>
        <strong>{caller.principal}</strong>
        {caller.role && ` · ${caller.role}`}
      </span>
      {kept.token && (
        <button type="button" class="plain" onClick={signOut}>
          sign out
        </button>
      )}
    </p>
  );
}

function SignInForm({ said, form }: { said: string; form: boolean }) {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const submit = async (event: Event) => {
    event.preventDefault();
    setWrong(undefined);
    try {
      await signIn(token);
    } catch (error) {
      setWrong(problem(error));
    }
  };
  return (
    <section class="sign-in">
      <Heading title="Sign in">Palimpsest</Heading>
      {said && (
        <p role="alert" id="said">
          {said}
        </p>
      )}
      {form && (
        <form onSubmit={(event) => void submit(event)}>
          <div class="field">
            <label>
              <span>Token</span>
              <input
                id="token"
                type="password"
                autocomplete="off"
                value={token}
                onInput={(event) => setToken(event.currentTarget.value)}
                required
                aria-describedby="token-hint"
              />
            </label>
            <small id="token-hint">
              As <code>palimpsest auth token</code> printed it. This tab keeps it until it is closed.
            </small>
          </div>
          <p class="buttons">
            <button type="submit" class="main">
              Sign in
            </button>
          </p>
        </form>
      )}
      {door.value?.asks.includes("certificate") && (
        <p class="quiet">
          A client certificate of this browser is taken, too: choose it when the browser asks, and load this page again.
        </p>
      )}
      <Wrong of={wrong} />
    </section>
  );
}

function App() {
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const [turn, setTurn] = useState(0);
  // A page that is loaded while the coordinator is away waits for it, as those do that are open.
  useEffect(() => {
    let pause = 1000;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const start = () =>
      void begin()
        .then(() => setWrong(undefined))
        .catch((error: unknown) => {
          setWrong(problem(error));
          timer = setTimeout(start, pause);
          pause = Math.min(2 * pause, 15_000);
        });
    start();
    return () => clearTimeout(timer);
  }, [turn]);
  const state = session.value;
  const path = place.value.path;
  if (state.state === "asks")
    return (
      <main class="alone">
        <SignInForm said={state.said} form={state.form} />
      </main>
    );
  if (state.state === "starting") {
    return (
      <main class="alone">
        {wrong ? (
          <>
            <Heading title="Not there">The server does not answer</Heading>
            <Wrong of={wrong} />
            <button type="button" class="main" onClick={() => setTurn(turn + 1)}>
              Try again
            </button>
          </>
        ) : (
          <p class="quiet">Palimpsest…</p>
        )}
      </main>
    );
  }
  const here = (to: string) => (to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`));
  return (
    <>
      <a class="skip" href="#main">
        To the page
      </a>
      <header>
        <a class="home" href="/" aria-label="Palimpsest, overview">
          <img src="/assets/icon.svg" alt="" width={22} height={22} />
          <span>Palimpsest</span>
        </a>
        <nav aria-label="Pages">
          {NAVIGATION.filter(([to]) => to !== "/playground" || may("JobService/CreateJob")).map(([to, title]) => (
            <a href={to} aria-current={here(to) ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <Who />
      </header>
      {lost.value && (
        <p class="lost" role="status">
          Nothing comes from the server; asking again. ({lost.value})
        </p>
      )}
      <main id="main" tabIndex={-1}>
        <Page />
      </main>
      <Confirm />
    </>
  );
}

document.addEventListener("click", follow);
const root = document.getElementById("app");
if (root) render(<App />, root);
