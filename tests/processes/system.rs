//! Whole processes under SIGKILL: nothing acknowledged is lost, nothing runs twice with effect,
//! and a disturbed sweep gives the bytes of an undisturbed one.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a test owns its time

use std::fs;

use crate::common::sweep::*;
use crate::common::{LONG, PATIENCE, Process, Site, fixture, get, wait};
use palimpsest::objects::ObjectStore;
use serde_json::Value;

#[test]
fn a_killed_worker_costs_only_its_running_tasks() {
    let sweep = ["--noise", "s3", "--samples", "3"];
    let expected = undisturbed(40, &sweep, &["--fake", "5"]);

    let site = quick_site();
    write_facts(&site, 40);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let mut victim = site.worker(&server, "victim", &["--fake", "60"]);
    let job = submit(&site, &server, &sweep);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 5).then_some(())
    });
    victim.kill();
    let kept = units_done(&site, &server);
    assert!(
        (5..120).contains(&kept),
        "{kept} units were done when the worker was killed"
    );
    let _heir = site.worker(&server, "heir", &["--fake", "5"]);
    assert_eq!(results(&site, &server, &job), expected);
    // What was committed is not computed again: the heir was given the rest only.
    let status = site.run(&["status", "--server", &server.url()], PATIENCE);
    let heir = status
        .lines()
        .find(|line| line.starts_with("heir"))
        .unwrap();
    let columns: Vec<&str> = heir.split_whitespace().collect();
    let units: u64 = columns[5].parse().unwrap();
    assert!(
        units <= 121 - kept,
        "the heir computed {units} units, {kept} were there:\n{status}"
    );
}

#[test]
fn a_killed_coordinator_goes_on_where_it_was() {
    let sweep = ["--noise", "s3", "--samples", "3"];
    let expected = undisturbed(40, &sweep, &["--fake", "5"]);

    let site = quick_site();
    write_facts(&site, 40);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _workers = ["one", "two"].map(|id| site.worker(&server, id, &["--fake", "20"]));
    let job = submit(&site, &server, &sweep);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 5).then_some(())
    });
    let before = units_done(&site, &server);
    server.process.kill();
    let server = site.serve(&server.address);
    assert!(
        units_done(&site, &server) >= before,
        "acknowledged units were lost"
    );
    assert_eq!(results(&site, &server, &job), expected);
}

#[test]
fn a_job_that_has_ended_is_shown_whole_before_and_after_a_restart() {
    let site = quick_site();
    write_facts(&site, 12);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _worker = site.worker(&server, "one", &["--fake", "1"]);
    let jobs = [["--noise", "0.1"], ["--noise", "0.2"]].map(|noise| {
        let job = submit(&site, &server, &noise);
        results(&site, &server, &job);
        job
    });
    let url = server.url();
    let show = || {
        let show = |job: &String| site.run(&["job", "show", job, "--server", &url], PATIENCE);
        jobs.each_ref().map(show)
    };
    let shown = show();
    for (job, noise) in shown.iter().zip(["0.1", "0.2"]) {
        assert!(
            job.contains(&format!("asked    12 facts, noise {noise},")),
            "{job}"
        );
        assert!(job.contains("The job is done."), "{job}");
        assert!(job.contains("36 of 36 done"), "{job}");
        let task = |line: &&str| line.contains("done") && line.ends_with("one");
        assert!(job.lines().filter(task).count() >= 1, "{job}");
    }
    server.process.kill();
    let address = server.address.clone();
    let _server = site.serve(&address);
    assert_eq!(show(), shown);
}

#[test]
fn a_client_that_follows_a_sweep_lives_through_a_restart_of_the_coordinator() {
    let site = quick_site();
    write_facts(&site, 20);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _worker = site.worker(&server, "one", &["--fake", "60"]);
    let url = server.url();
    let args = [
        "trace",
        "--facts",
        "facts.jsonl",
        "--noise",
        "0.1",
        "--json",
        "--server",
        &url,
    ];
    let mut client = Process::start("trace", &mut site.command(&args), &site.path("trace.log"));
    wait("the job", PATIENCE, || {
        (!jobs(&site, &server).is_empty()).then_some(())
    });
    server.process.kill();
    let _server = site.serve(&server.address);
    let status = client.wait(LONG);
    assert!(status.success(), "{}", client.said());
    assert_eq!(
        client
            .said()
            .lines()
            .filter(|line| line.starts_with('{'))
            .count(),
        60
    );
}

#[test]
fn a_worker_asked_to_stop_hands_back_and_leaves_well() {
    let site = quick_site();
    write_facts(&site, 20);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let mut first = site.worker(&server, "first", &["--fake", "50"]);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 1).then_some(())
    });
    first.terminate();
    assert!(first.wait(PATIENCE).success(), "{}", first.said());
    let _second = site.worker(&server, "second", &["--fake", "1"]);
    results(&site, &server, &job);
    // Handing back is not a failure of the task.
    let show = site.run(&["job", "show", &job, "--server", &server.url()], PATIENCE);
    assert!(
        !show.contains("transient") && !show.contains("worker lost"),
        "{show}"
    );
}

#[test]
fn a_worker_is_drained_from_the_command_line() {
    let site = quick_site();
    write_facts(&site, 20);
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    import(&site, &server);
    let engine = ["--fake", "50", "--drain-timeout", "1s"];
    let mut first = site.worker(&server, "first", &engine);
    let job = submit(&site, &server, &["--noise", "0.1", "--owner", "ada"]);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 1).then_some(())
    });
    let list = site.run(&["worker", "list", "--server", &url], PATIENCE);
    assert!(list.lines().any(|line| line.starts_with("first")), "{list}");
    let drain = ["worker", "drain", "first", "--server", &url];
    let out = site.run(&drain, PATIENCE);
    assert!(out.contains("workers/first draining"), "{out}");
    assert!(first.wait(PATIENCE).success(), "{}", first.said());
    let _second = site.worker(&server, "second", &["--fake", "1"]);
    results(&site, &server, &job);
    let show = site.run(&["job", "show", &job, "--server", &url], PATIENCE);
    assert!(show.contains("owner    ada"), "{show}");
}

#[test]
fn a_task_that_kills_its_workers_is_held_until_it_is_requeued() {
    let site = Site::new();
    let settings = "[serve]\nheartbeat_interval = \"100ms\"\nlease_duration = \"1s\"\n\
                    poison_workers = 2\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    write_facts(&site, 1);
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    for id in ["one", "two"] {
        let mut victim = site.worker(&server, id, &["--fake", "600000"]);
        wait("a lease", PATIENCE, || {
            victim.said().contains("lease taken").then_some(())
        });
        victim.kill();
        wait("the loss of it", PATIENCE, || {
            let list = site.run(&["worker", "list", "--server", &url], PATIENCE);
            (!list.contains(id)).then_some(())
        });
    }
    // Whoever follows it is told, and does not wait for what does not come.
    let mut watch = Process::start(
        "watch",
        &mut site.command(&["job", "watch", &job, "--server", &url]),
        &site.path("watch.log"),
    );
    assert!(!watch.wait(PATIENCE).success());
    assert!(watch.said().contains("held"), "{}", watch.said());
    assert!(
        watch.said().contains("palimpsest job requeue"),
        "{}",
        watch.said()
    );
    let requeue = ["job", "requeue", &job, "--server", &url];
    let out = site.run(&requeue, PATIENCE);
    assert!(out.contains("running, 1 tasks requeued"), "{out}");
    let _good = site.worker(&server, "good", &["--fake", "1"]);
    assert_eq!(results(&site, &server, &job).lines().count(), 3);
}

#[test]
fn who_follows_a_job_waits_for_a_coordinator_as_long_as_the_settings_say() {
    let site = quick_site();
    write_facts(&site, 1);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    let watch = |patience: &str| {
        let mut command = site.command(&["job", "watch", &job, "--server", &server.url()]);
        command.env("PALIMPSEST__CLIENT__PATIENCE", patience);
        Process::start(
            "watch",
            &mut command,
            &site.path(&format!("watch-{patience}.log")),
        )
    };
    let (mut short, mut long) = (watch("1s"), watch("1h"));
    for watching in [&short, &long] {
        wait("progress", PATIENCE, || {
            watching.said().contains("grids").then_some(())
        });
    }
    server.process.kill();
    assert!(!short.wait(PATIENCE).success());
    assert!(long.ended().is_none());
    long.kill();
}

#[test]
fn a_sweep_too_large_for_a_request_gives_the_results_of_its_facts() {
    let site = quick_site();
    // One word, so that the prompt is long and has few tokens: the model's context is short.
    let filler = "itiswellknowninalltheland".repeat(160);
    let lines: String = (0..600)
        .map(|n| {
            let subject = format!("the tower of town {n}");
            let prompt = format!("{filler} {subject} stands in the country of");
            serde_json::json!({ "prompt": prompt, "subject": subject }).to_string() + "\n"
        })
        .collect();
    assert!(lines.len() > 2 << 20);
    fs::write(site.path("facts.jsonl"), &lines).unwrap();
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _worker = site.worker(&server, "one", &["--fake", "0"]);
    let job = submit(&site, &server, &["--noise", "s3", "--kinds", "mlp"]);
    let results = results(&site, &server, &job);
    assert_eq!(results.lines().count(), 600);
    for (line, fact) in results.lines().zip(lines.lines()) {
        let (line, fact): (Value, Value) = (
            serde_json::from_str(line).unwrap(),
            serde_json::from_str(fact).unwrap(),
        );
        assert_eq!(line["subject"], fact["subject"]);
    }
}

/// The real engine looks for a cancellation between batches, and a task of these would take long.
#[cfg(feature = "torch")]
#[test]
fn a_cancelled_job_stops_the_real_engine_in_the_middle_of_a_task() {
    let site = quick_site();
    write_facts(&site, 40);
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    import(&site, &server);
    let engine = ["--device", "cpu", "--threads", "1"];
    let _worker = site.worker(&server, "one", &engine);
    let long = ["--noise", "0.5", "--samples", "10000"];
    let job = submit(&site, &server, &long);
    wait("a running engine", PATIENCE, || {
        let list = site.run(&["worker", "list", "--server", &url], PATIENCE);
        let line = list
            .lines()
            .find(|line| line.starts_with("one"))?
            .to_owned();
        // Its rate is known only once it computes.
        (line.split_whitespace().nth(6)? != "0").then_some(())
    });
    site.run(&["job", "cancel", &job, "--server", &url], PATIENCE);
    // The next job runs as soon as the engine is free.
    let next = submit(
        &site,
        &server,
        &["--noise", "0.5", "--samples", "1", "--limit", "1"],
    );
    results(&site, &server, &next);
}

#[test]
fn a_worker_whose_cache_holds_one_model_works_on_two_in_turn() {
    let site = quick_site();
    let mut settings = fs::read_to_string(site.path("palimpsest.toml")).unwrap();
    settings += "[worker]\ncache_size = \"160KiB\"\nmetrics_listen = \"127.0.0.1:0\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    write_facts(&site, 3);
    let server = site.serve("127.0.0.1:0");
    for name in ["llama", "gpt2"] {
        // A copy, which is then removed: a worker uses files where they are, if it can.
        let copy = site.path(name);
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(fixture(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let model = copy.to_str().unwrap();
        let args = ["model", "import", model, "--server", &server.url()];
        site.run(&args, PATIENCE);
        fs::remove_dir_all(&copy).unwrap();
    }
    let worker = site.worker(&server, "small", &["--fake", "1"]);
    let folder = site.path("cache-small");
    let taken = || {
        let listed = ObjectStore::list_in(&folder).unwrap();
        listed.iter().map(|object| object.size).sum::<u64>()
    };
    for round in 0..2 {
        for model in ["llama", "gpt2"] {
            let seed = format!("{round}");
            let more = ["--model", model, "--noise", "0.1", "--seed", &seed];
            let job = submit(&site, &server, &more);
            assert_eq!(results(&site, &server, &job).lines().count(), 9);
            let taken = taken();
            assert!((100 << 10..=160 << 10).contains(&taken), "{taken} bytes");
        }
    }
    assert!(!worker.said().contains("failed"), "{}", worker.said());
    let metrics = get(&worker.address_after("showing metrics"), "/metrics").1;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(' ').nth(1));
        value.unwrap_or("0").parse::<f64>().unwrap()
    };
    assert_eq!(value("palimpsest_worker_cache_bytes"), taken() as f64);
    assert!(value("palimpsest_worker_cache_evicted_bytes_total") > 300_000.0);
}

#[test]
fn a_worker_with_nothing_left_to_do_leaves_when_it_was_told_to() {
    let site = quick_site();
    write_facts(&site, 5);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    // Longer over a unit than it may be idle: it is not idle while it works.
    let args = ["--fake", "300", "--idle-exit", "200ms"];
    let mut worker = site.worker(&server, "batch", &args);
    results(&site, &server, &job);
    assert!(worker.wait(PATIENCE).success(), "{}", worker.said());
}

#[test]
fn a_coordinator_asked_to_stop_leaves_well_with_streams_open() {
    let site = quick_site();
    let mut server = site.serve("127.0.0.1:0");
    let _worker = site.worker(&server, "one", &["--fake", "1"]);
    server.process.terminate();
    assert!(
        server.process.wait(PATIENCE).success(),
        "{}",
        server.process.said()
    );
}

#[test]
fn a_cancelled_job_stops_its_worker_and_keeps_its_results() {
    let site = quick_site();
    write_facts(&site, 100);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _worker = site.worker(&server, "one", &["--fake", "30"]);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 3).then_some(())
    });
    let url = server.url();
    let out = site.run(&["job", "cancel", &job, "--server", &url], PATIENCE);
    assert!(out.contains("cancelled"), "{out}");
    let kept = units_done(&site, &server);
    wait("an idle worker", PATIENCE, || {
        site.run(&["status", "--server", &url], PATIENCE)
            .contains("idle")
            .then_some(())
    });
    assert_eq!(units_done(&site, &server), kept, "a cancelled job went on");
    let results = site.run(
        &["job", "results", &job, "--json", "--server", &url],
        PATIENCE,
    );
    assert_eq!(results.lines().count() as u64, kept);
}

/// The same with a real model: the last bits of a number depend on the shapes it was computed in,
/// and these must not depend on who computes it.
#[cfg(feature = "torch")]
#[test]
fn a_real_sweep_gives_the_same_bytes_however_it_is_disturbed() {
    let sweep = ["--noise", "0.5", "--samples", "3", "--window", "2"];
    let engine = ["--device", "cpu", "--threads", "1"];
    let expected = undisturbed(12, &sweep, &engine);
    let first: serde_json::Value = serde_json::from_str(expected.lines().next().unwrap()).unwrap();
    assert_eq!(first["correct_prediction"], true);

    let site = quick_site();
    write_facts(&site, 12);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let mut victim = site.worker(&server, "victim", &engine);
    let _other = site.worker(&server, "other", &engine);
    let job = submit(&site, &server, &sweep);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 2).then_some(())
    });
    victim.kill();
    server.process.kill();
    let server = site.serve(&server.address);
    assert_eq!(results(&site, &server, &job), expected);
}

/// One process with a model on each of its devices is two workers, and one whose model is spread
/// over them is one; either computes the bytes that a worker on one device does.
#[cfg(feature = "torch")]
#[test]
fn workers_of_several_devices_give_the_bytes_of_one() {
    let sweep = ["--noise", "0.5", "--samples", "2", "--window", "2"];
    let engine = ["--device", "cpu", "--threads", "1"];
    let expected = undisturbed(12, &sweep, &engine);
    for (more, names) in [
        (&["--per-device"][..], &["both-0", "both-1"][..]),
        (&[], &["both"]),
    ] {
        let site = quick_site();
        let mut settings = fs::read_to_string(site.path("palimpsest.toml")).unwrap();
        settings += "[worker]\nmetrics_listen = \"127.0.0.1:0\"\n";
        fs::write(site.path("palimpsest.toml"), settings).unwrap();
        write_facts(&site, 12);
        let server = site.serve("127.0.0.1:0");
        import(&site, &server);
        let engine = [&["--device", "cpu,cpu", "--threads", "1"], more].concat();
        let mut worker = site.worker(&server, "both", &engine);
        let job = submit(&site, &server, &sweep);
        assert_eq!(results(&site, &server, &job), expected, "{more:?}");
        let list = site.run(&["worker", "list", "--server", &server.url()], PATIENCE);
        for name in names {
            assert!(list.lines().any(|line| line.starts_with(name)), "{list}");
        }
        let metrics = get(&worker.address_after("showing metrics"), "/metrics").1;
        let connected = format!("\npalimpsest_worker_connected {}\n", names.len());
        assert!(metrics.contains(&connected), "{metrics}");
        worker.terminate();
        assert!(worker.wait(PATIENCE).success(), "{}", worker.said());
    }
}

/// At once is in the middle of what the engine does: nothing of libtorch may be taken apart under
/// it.
#[cfg(feature = "torch")]
#[test]
fn a_worker_asked_twice_leaves_at_once() {
    let site = quick_site();
    write_facts(&site, 40);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let engine = ["--device", "cpu,cpu", "--per-device", "--threads", "1"];
    let mut worker = site.worker(&server, "hasty", &engine);
    let _job = submit(&site, &server, &["--noise", "0.5", "--samples", "50"]);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 1).then_some(())
    });
    worker.terminate();
    wait("the first word", PATIENCE, || {
        let said = worker.said();
        said.contains("asked to stop").then_some(())
    });
    worker.terminate();
    let status = worker.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{status:?}: {}", worker.said());
    assert!(worker.said().contains("asked twice"), "{}", worker.said());
}

/// An engine that has nothing to do while another of its process works stays: the next lease may be
/// its own.
#[cfg(feature = "torch")]
#[test]
fn the_workers_of_a_process_leave_for_want_of_work_together() {
    let site = quick_site();
    write_facts(&site, 1);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let engine = ["--device", "cpu,cpu", "--per-device", "--threads", "1"];
    // Longer than a busy machine needs from one job to the next.
    let patient = [&engine[..], &["--idle-exit", "6s"]].concat();
    let mut worker = site.worker(&server, "both", &patient);
    // One lease at a time, for longer than that.
    let begun = std::time::Instant::now();
    for seed in 0.. {
        let seed = format!("{seed}");
        let long = ["--noise", "0.3", "--samples", "1000", "--seed", &seed];
        let job = submit(&site, &server, &long);
        results(&site, &server, &job);
        if begun.elapsed().as_secs_f64() > 8.0 {
            break;
        }
    }
    assert!(
        !worker.said().contains("nothing to do"),
        "{}",
        worker.said()
    );
    assert!(worker.wait(PATIENCE).success(), "{}", worker.said());
    assert_eq!(worker.said().matches("nothing to do").count(), 2);
}
