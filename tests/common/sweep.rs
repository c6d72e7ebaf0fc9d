//! A sweep from beginning to end, through the command line.

use std::fs;

use serde_json::Value;

use super::{LONG, PATIENCE, Server, Site, fixture};

/// A site whose coordinator notices a lost worker within a second.
pub fn quick_site() -> Site {
    let site = Site::new();
    let settings = "[serve]\nheartbeat_interval = \"100ms\"\nlease_duration = \"1s\"\n\
                    max_attempts = 100\npoison_workers = 1000\ntask_time = \"1s\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    site
}

/// Facts of our own, in JSON lines.
pub fn write_facts(site: &Site, count: usize) {
    let lines: String = (0..count)
        .map(|n| {
            let subject = format!("The tower of town {n}");
            let prompt = format!("{subject} stands in the country of");
            serde_json::json!({ "prompt": prompt, "subject": subject }).to_string() + "\n"
        })
        .collect();
    fs::write(site.path("facts.jsonl"), lines).unwrap();
}

/// Imports a tiny model as `tiny`.
pub fn import(site: &Site, server: &Server) {
    let model = fixture("llama");
    let args = [
        "model",
        "import",
        model.to_str().unwrap(),
        "--name",
        "tiny",
        "--server",
        &server.url(),
    ];
    site.run(&args, PATIENCE);
}

/// Submits the sweep and gives the job's name.
pub fn submit(site: &Site, server: &Server, more: &[&str]) -> String {
    let url = server.url();
    let args = [
        &[
            "trace",
            "--facts",
            "facts.jsonl",
            "--detach",
            "--server",
            &url,
        ],
        more,
    ]
    .concat();
    site.run(&args, PATIENCE).trim().to_owned()
}

/// The jobs, the newest first.
pub fn jobs(site: &Site, server: &Server) -> Vec<Value> {
    let out = site.run(
        &["job", "list", "--json", "--server", &server.url()],
        PATIENCE,
    );
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Units that the newest job has committed.
pub fn units_done(site: &Site, server: &Server) -> u64 {
    jobs(site, server)[0]["units_done"].as_u64().unwrap()
}

/// Follows the job to its end and gives its results as they are printed.
pub fn results(site: &Site, server: &Server, job: &str) -> String {
    let url = server.url();
    let end = site.run(&["job", "watch", job, "--server", &url], LONG);
    assert!(end.contains("succeeded"), "{end}");
    site.run(
        &["job", "results", job, "--json", "--server", &url],
        PATIENCE,
    )
}

/// The sweep's results when nothing goes wrong.
pub fn undisturbed(facts: usize, sweep: &[&str], engine: &[&str]) -> String {
    let site = quick_site();
    write_facts(&site, facts);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let _worker = site.worker(&server, "calm", engine);
    let job = submit(&site, &server, sweep);
    let results = results(&site, &server, &job);
    assert_eq!(results.lines().count(), 3 * facts);
    results
}
