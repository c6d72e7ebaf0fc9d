//! `.npz` files read by NumPy itself.
//!
//! Uses the Python that `deploy/setup.sh` puts into `.deps`, and says so where it is missing.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use palimpsest::npz::{Npz, Trace};

#[test]
fn numpy_reads_what_was_written_without_pickles() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/python/bin/python");
    if !python.exists() {
        eprintln!("skipped: no {}; run deploy/setup.sh", python.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let tokens = ["The", " Space", " Need", "le", "\n", "東京", "🧑‍🚀"].map(str::to_owned);
    let scores: Vec<f32> = (0..21).map(|i| i as f32 / 7.0).collect();
    let trace = Trace {
        scores: &scores,
        shape: &[7, 3],
        low_score: 0.026176,
        high_score: 0.97638,
        input_ids: &[464, 4687, 7664, 293, 198, 1, 2],
        input_tokens: &tokens,
        subject_range: 1..4,
        answer: " Seattle",
        window: 10,
        kind: "",
    };
    std::fs::write(
        path("trace.npz"),
        trace.to_npz().unwrap().to_bytes().unwrap(),
    )
    .unwrap();
    std::fs::write(
        path("wrong.npz"),
        Trace::untraced(None).unwrap().to_bytes().unwrap(),
    )
    .unwrap();
    let mut npz = Npz::new();
    npz.f64(
        "doubles",
        &[2, 1, 2],
        &[1e-300, -0.0, f64::NAN, f64::INFINITY],
    )
    .unwrap()
    .bool("flags", &[3], &[true, false, true])
    .unwrap()
    .i64("bounds", &[2], &[i64::MIN, i64::MAX])
    .unwrap()
    .f32("nothing", &[0, 5], &[])
    .unwrap()
    .f32("deep", &[1; 32], &[2.5])
    .unwrap();
    npz.write(std::fs::File::create(path("other.npz")).unwrap())
        .unwrap();

    let script = r#"
import sys, numpy as np
trace, wrong, other = (np.load(p, allow_pickle=False) for p in sys.argv[1:])
assert trace.files == ["scores", "low_score", "high_score", "input_ids", "input_tokens",
    "subject_range", "answer", "window", "correct_prediction", "kind"], trace.files
assert trace["scores"].dtype == np.float32 and trace["scores"].shape == (7, 3)
assert (trace["scores"] == (np.arange(21, dtype=np.float32) / np.float32(7)).reshape(7, 3)).all()
assert trace["low_score"].shape == () and float(trace["low_score"]) == 0.026176
assert float(trace["high_score"]) == 0.97638
assert trace["input_ids"].dtype == np.int64 and trace["input_ids"].tolist() == [464, 4687, 7664, 293, 198, 1, 2]
assert list(trace["input_tokens"]) == ["The", " Space", " Need", "le", "\n", "東京", "🧑‍🚀"]
assert list(range(*trace["subject_range"])) == [1, 2, 3]
assert str(trace["answer"]).strip() == "Seattle" and trace["answer"].shape == ()
assert int(trace["window"]) == 10 and not str(trace["kind"]) and bool(trace["correct_prediction"])
# What numpy.savez itself makes of the same values has the same types.
import io
again = io.BytesIO()
np.savez(again, **{k: trace[k].tolist() if trace[k].dtype.kind != "f" else trace[k] for k in trace.files})
again.seek(0)
for k, v in np.load(again).items():
    assert (v.dtype, v.shape) == (trace[k].dtype, trace[k].shape), (k, v.dtype, trace[k].dtype)
assert wrong.files == ["correct_prediction"] and not wrong["correct_prediction"]
d = other["doubles"]
assert d.shape == (2, 1, 2) and d[0, 0, 0] == 1e-300 and np.signbit(d[0, 0, 1]) and np.isnan(d[1, 0, 0]) and np.isinf(d[1, 0, 1])
assert other["flags"].dtype == np.bool_ and other["flags"].tolist() == [True, False, True]
assert other["bounds"].tolist() == [-2**63, 2**63 - 1]
assert other["nothing"].shape == (0, 5) and other["deep"].ndim == 32 and other["deep"].item() == 2.5
"#;
    let output = Command::new(python)
        .args(["-c", script])
        .args(["trace.npz", "wrong.npz", "other.npz"].map(path))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
