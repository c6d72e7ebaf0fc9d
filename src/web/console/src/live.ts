// Loading, and staying up to date: without a switch, and only while somebody looks.

import { signal } from "@preact/signals";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { isCancelled, isPassing, problem, type Problem } from "./client";
import { isOut } from "./may";

/** Whether the tab is seen. */
export const seen = signal(!document.hidden);
/** Why nothing comes from the server; empty while all is well. */
export const lost = signal("");

document.addEventListener("visibilitychange", () => {
  seen.value = !document.hidden;
});

export interface Loaded<T> {
  data: T | undefined;
  problem: Problem | undefined;
  loading: boolean;
  again: () => void;
}

/** What `load` gives, anew whenever `key` changes; with `keep`, what was there stays until the newer is. */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, keep = false): Loaded<T> {
  const [state, setState] = useState<{
    key: string;
    data: T | undefined;
    problem: Problem | undefined;
    loading: boolean;
  }>({
    key,
    data: undefined,
    problem: undefined,
    loading: true,
  });
  const [turn, setTurn] = useState(0);
  const newest = useRef(load);
  newest.current = load;
  const pause = useRef(1000);
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    setState((was) => ({
      key,
      data: keep || was.key === key ? was.data : undefined,
      problem: undefined,
      loading: true,
    }));
    newest
      .current(stop.signal)
      .then((data) => {
        lost.value = "";
        pause.current = 1000;
        if (!stop.signal.aborted) setState({ key, data, problem: undefined, loading: false });
      })
      .catch((error: unknown) => {
        if (stop.signal.aborted || isCancelled(error) || isOut(error)) return;
        if (isPassing(error)) {
          // As with what is followed: it is asked again until the coordinator is back.
          lost.value = problem(error).message;
          timer = setTimeout(() => setTurn((n) => n + 1), pause.current);
          pause.current = Math.min(pause.current * 2, 15_000);
          return;
        }
        setState((was) => ({ key, data: was.data, problem: problem(error), loading: false }));
      });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, turn]);
  const again = useCallback(() => setTurn((n) => n + 1), []);
  const fresh = keep || state.key === key;
  return {
    data: fresh ? state.data : undefined,
    problem: fresh ? state.problem : undefined,
    loading: !fresh || state.loading,
    again,
  };
}

/** The same, asked again every `every` milliseconds while the tab is seen. A failure is tried again later. */
export function usePoll<T>(key: string, every: number, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [data, setData] = useState<T | undefined>(undefined);
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const [loading, setLoading] = useState(true);
  const [turn, setTurn] = useState(0);
  const newest = useRef(load);
  newest.current = load;
  const visible = seen.value;
  useEffect(() => {
    setData(undefined);
    setLoading(true);
  }, [key]);
  useEffect(() => {
    if (!visible) return undefined;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let pause = every;
    const ask = async () => {
      try {
        const found = await newest.current(stop.signal);
        if (stop.signal.aborted) return;
        pause = every;
        lost.value = "";
        setData(found);
        setWrong(undefined);
      } catch (error) {
        if (stop.signal.aborted || isCancelled(error) || isOut(error)) return;
        pause = Math.min(pause * 2, 30_000);
        if (isPassing(error)) lost.value = problem(error).message;
        setWrong(problem(error));
      }
      setLoading(false);
      timer = setTimeout(() => void ask(), pause);
    };
    void ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, every, visible, turn]);
  const again = useCallback(() => setTurn((n) => n + 1), []);
  return { data, problem: wrong, loading, again };
}

// A browser has six connections to a server that speaks HTTP/1.1, all its tabs together: a tab has one stream.
let open: AbortController | undefined;

/**
 * Follows a stream while the tab is seen: closed when it is hidden, and gone on with when it is seen again or
 * when the connection broke. `start` is asked for the stream from where one was; it ends with `undefined`.
 */
export function useStream<M>(
  key: string | undefined,
  start: (signal: AbortSignal) => AsyncIterable<M> | undefined,
  take: (message: M) => void,
): Problem | undefined {
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const visible = seen.value;
  const newest = useRef({ start, take });
  newest.current = { start, take };
  useEffect(() => {
    if (!visible || key === undefined) return undefined;
    open?.abort();
    const stop = new AbortController();
    open = stop;
    const follow = async () => {
      for (let pause = 500; !stop.signal.aborted;) {
        try {
          const stream = newest.current.start(stop.signal);
          if (!stream) return;
          for await (const message of stream) {
            if (stop.signal.aborted) return;
            pause = 500;
            lost.value = "";
            setWrong(undefined);
            newest.current.take(message);
          }
        } catch (error) {
          if (stop.signal.aborted || isCancelled(error) || isOut(error)) return;
          if (!isPassing(error)) {
            setWrong(problem(error));
            return;
          }
          lost.value = problem(error).message;
        }
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(pause * 2, 15_000);
      }
    };
    void follow();
    return () => {
      stop.abort();
      if (open === stop) open = undefined;
    };
  }, [key, visible]);
  return wrong;
}

/** The time, every second while the tab is seen: for what counts down. */
export function useClock(every = 1000): number {
  const [time, setTime] = useState(Date.now());
  const visible = seen.value;
  useEffect(() => {
    if (!visible) return undefined;
    const timer = setInterval(() => setTime(Date.now()), every);
    return () => clearInterval(timer);
  }, [every, visible]);
  return time;
}

/** A change that the visitor asks for: whether it is under way, and what went wrong. */
export function useDoing(): {
  busy: boolean;
  problem: Problem | undefined;
  run: (what: () => Promise<void>) => Promise<void>;
  clear: () => void;
} {
  const [busy, setBusy] = useState(false);
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const run = useCallback(async (what: () => Promise<void>) => {
    setBusy(true);
    setWrong(undefined);
    try {
      await what();
    } catch (error) {
      setWrong(problem(error));
    } finally {
      setBusy(false);
    }
  }, []);
  const clear = useCallback(() => setWrong(undefined), []);
  return { busy, problem: wrong, run, clear };
}
