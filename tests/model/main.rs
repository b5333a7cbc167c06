//! The pure heart against models that are too slow or too simple to ship: generated histories, shrunk to the smallest that
//! breaks a rule. `MODEL_CASES` sets how many.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod checkpoint;
mod cursor;
mod dedup;
mod verdicts;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Puts a rule to the proof.
fn run<S: Strategy>(histories: S, rule: impl Fn(S::Value) -> TestCaseResult) {
    let default = if std::env::var_os("CI").is_some() { 25_000 } else { 5_000 };
    let cases = std::env::var("MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    if let Err(broken) = runner.run(&histories, rule) {
        panic!("{broken}");
    }
}
