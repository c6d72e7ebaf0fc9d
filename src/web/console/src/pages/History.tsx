// The versions of a model as a graph, with what can be done on every row; beside it how refs moved.

import { useMemo, useState } from "preact/hooks";

import { RefKind, type Version } from "../../contract/palimpsest/v1/version_pb";
import { audit, versions } from "../client";
import { call, command } from "../copied";
import { ago, brief, count, last, moment, versionWord, visible } from "../format";
import { useDoing, usePoll } from "../live";
import { Choice, Heading, Quiet, Waiting, Wrong } from "../parts/common";
import { NameIt, RefLabels, refsAt, RollBack } from "../parts/changes";
import { CopyAs } from "../parts/CopyAs";
import { GraphCell, graphWidth, leads } from "../parts/graph";
import { allRefs } from "../refs";
import { asked, setQuery, to } from "../route";

/** Entries of the audit log among which the movements of refs are. */
const MOVES = 200;

export function History({ model }: { model: string }) {
  const parent = `models/${model}`;
  const read = usePoll(`history ${model}`, 5000, async (signal) => {
    const [list, refs, moves] = await Promise.all([
      versions.listVersions({ parent, pageSize: 200 }, { signal }),
      allRefs(parent, signal),
      audit.listAuditEntries({ resource: parent, newestFirst: true, pageSize: MOVES }, { signal }),
    ]);
    return {
      versions: list.versions,
      next: list.nextPageToken,
      refs,
      moves: moves.leaves.flatMap((leaf) => (leaf.entry ? [leaf.entry] : [])),
      more: moves.nextPageToken !== "",
    };
  });
  const [older, setOlder] = useState<{ versions: Version[]; next: string | undefined }>({
    versions: [],
    next: undefined,
  });
  const doing = useDoing();
  const [chosen, setChosen] = useState<string[]>([]);
  const first = read.data?.versions ?? [];
  const names = new Set(first.map((version) => version.name));
  const shown = [...first, ...older.versions.filter((version) => !names.has(version.name))];
  const next = older.next ?? read.data?.next ?? "";
  const graph = useMemo(
    () => leads(shown.map((version) => ({ id: last(version.name), parent: version.parent || undefined }))),
    [shown.length, first[0]?.name],
  );
  const width = graphWidth(graph);
  const refs = read.data?.refs ?? [];
  const branches = refs.filter((ref) => ref.kind === RefKind.BRANCH).map((ref) => last(ref.name));
  const branch = branches.includes(asked("branch", "main")) ? asked("branch", "main") : "main";
  const choose = (id: string) =>
    setChosen((was) => (was.includes(id) ? was.filter((it) => it !== id) : [...was, id].slice(-2)));
  const more = () =>
    doing.run(async () => {
      const answer = await versions.listVersions({ parent, pageSize: 200, pageToken: next });
      setOlder({ versions: [...older.versions, ...answer.versions], next: answer.nextPageToken });
    });
  const moves = read.data?.moves.filter((entry) => entry.versionAfter || entry.action.startsWith("refs")) ?? [];
  return (
    <>
      <div class="title">
        <Heading title={`History of ${model}`}>
          History of <a href={`/${parent}`}>{model}</a>
        </Heading>
        <CopyAs
          command={command("log", [], { model })}
          python={`${call("p.model", [model])}.versions()`}
          json={() => shown}
        />
      </div>
      <Waiting of={read} what="versions" />
      <Quiet method="VersionService/UpdateRef" what="move refs" />
      {read.data && (
        <>
          <form class="filters" onSubmit={(event) => event.preventDefault()}>
            {branches.length > 1 && (
              <Choice
                label="Roll back moves the branch"
                value={branch}
                options={branches.map((name) => [name, name] as const)}
                onChange={(name) => setQuery({ branch: name === "main" ? undefined : name })}
              />
            )}
          </form>
          <p class="buttons">
            {chosen.length === 2 ? (
              <a class="button main" href={to(`/models/${model}/diff`, { left: chosen[0], right: chosen[1] })}>
                What differs
              </a>
            ) : (
              <span class="quiet">Pick two versions to see what differs.</span>
            )}
          </p>
          <div class="wide" tabIndex={0} role="region" aria-label="Versions">
            <table class="history">
              <thead>
                <tr>
                  <th scope="col">
                    <span class="sr">Graph</span>
                  </th>
                  <th scope="col">Pick</th>
                  <th scope="col">Version</th>
                  <th scope="col">Came by</th>
                  <th scope="col">When</th>
                  <th scope="col">
                    <span class="sr">What can be done</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {shown.map((version, i) => {
                  const id = last(version.name);
                  const word = `v${version.number}`;
                  const lead = graph[i];
                  return (
                    <tr key={id}>
                      <td class="graph-cell" style={{ minWidth: `${width}px` }}>
                        {lead && <GraphCell lead={lead} width={width} />}
                      </td>
                      <td>
                        <input
                          type="checkbox"
                          aria-label={`Compare ${word}`}
                          checked={chosen.includes(id)}
                          onChange={() => choose(id)}
                        />
                      </td>
                      <td>
                        <a href={`/${parent}/versions/${id}`}>{word}</a> <span class="mono">{brief(id, 8)}</span>{" "}
                        <RefLabels refs={refsAt(refs, id)} />
                      </td>
                      <td>
                        {versionWord(version.kind)}
                        {version.subjectEdit && (
                          <>
                            {" "}
                            <a class="mono" href={`/${parent}/edits/${version.subjectEdit}`}>
                              {brief(version.subjectEdit, 8)}
                            </a>
                          </>
                        )}
                        {version.author && ` by ${version.author}`}
                        {version.why && <span class="second">{visible(version.why)}</span>}
                        {version.warnings.map((warning) => (
                          <span class="warning second">{visible(warning)}</span>
                        ))}
                      </td>
                      <td>
                        <time title={moment(version.createTime)}>{ago(version.createTime)}</time>
                      </td>
                      <td class="acts">
                        <RollBack
                          model={model}
                          version={version.name}
                          word={word}
                          refs={refs}
                          done={read.again}
                          branch={branch}
                        />
                        <NameIt
                          model={model}
                          version={version.name}
                          word={word}
                          kind={RefKind.BRANCH}
                          done={read.again}
                        />
                        <NameIt model={model} version={version.name} word={word} kind={RefKind.TAG} done={read.again} />
                        <a
                          class="button"
                          href={to(`/models/${model}/diff`, { left: id, right: branch })}
                          aria-label={`Compare ${word} with ${branch}`}
                        >
                          Compare
                        </a>
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
          {next && (
            <button type="button" disabled={doing.busy} onClick={() => void more()}>
              Older ones
            </button>
          )}
          <Wrong of={doing.problem} />
          <section>
            <h2>How refs moved</h2>
            {moves.length === 0 && <p class="quiet">Nothing has moved yet.</p>}
            <ol class="moves">
              {moves.map((entry) => (
                <li>
                  <time title={moment(entry.time)}>{ago(entry.time)}</time> <strong>{entry.principal}</strong>:{" "}
                  {entry.action} of <span class="break">{entry.resource.replace(`${parent}/`, "")}</span>
                  {entry.versionAfter && (
                    <>
                      {" "}
                      <span class="mono">{brief(entry.versionBefore, 8)}</span> →{" "}
                      <a class="mono" href={`/${parent}/versions/${entry.versionAfter}`}>
                        {brief(entry.versionAfter, 8)}
                      </a>
                    </>
                  )}
                  {entry.refusal && <span class="otherwise"> refused: {visible(entry.refusal)}</span>}
                  {entry.why && <span class="second">{visible(entry.why)}</span>}
                </li>
              ))}
            </ol>
            {read.data.more && (
              <p class="quiet">
                The newest {count(moves.length)}; <a href={to("/audit", { resource: parent })}>all of them</a>
              </p>
            )}
          </section>
        </>
      )}
    </>
  );
}
