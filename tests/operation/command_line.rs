//! The command line of the real binary: what it prints where, and its exit status.

use std::process::{Command, Output};

/// The binary in an empty environment and a folder without settings.
fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = std::env::temp_dir().join(format!("audiohook-command-line-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    Command::new(env!("CARGO_BIN_EXE_audiohook-collector"))
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn help_and_version_are_printed_everywhere() {
    for command in ["", "demo", "simulate", "check", "audit", "health", "replay", "template", "help", "version"] {
        for (option, expected) in [("--help", "Usage: audiohook-collector"), ("--version", env!("CARGO_PKG_VERSION"))] {
            let args: Vec<&str> = [command, option].into_iter().filter(|word| !word.is_empty()).collect();
            let output = run(&args, &[]);
            assert_eq!(output.status.code(), Some(0), "{args:?}");
            assert!(text(&output.stdout).contains(expected), "{args:?}");
            assert!(output.stderr.is_empty(), "{args:?}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn only_a_closed_pipe_is_forgiven_what_is_printed() {
    let (closed, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    for (output, status) in [(std::os::fd::OwnedFd::from(closed), 0), (full.into(), 1)] {
        for args in [&["--help"][..], &["demo", "--help"], &["--version"], &["template"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_audiohook-collector"));
            let output = command
                .args(args)
                .env_clear()
                .current_dir("/")
                .stdout(output.try_clone().expect("a copy"))
                .output()
                .expect("the binary runs");
            assert_eq!(output.status.code(), Some(status), "{args:?}");
            let errors = text(&output.stderr);
            assert_eq!(errors.contains("cannot print: "), status == 1, "{errors}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_status_2() {
    for args in [&["--nope"][..], &["chek"], &["demo", "--for", "0"], &["--env-file"], &["audit", "--from", "noon"]] {
        let output = run(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = text(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("--help"), "{error}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_commands_too_and_a_misspelt_name_brings_the_nearest() {
    let said = |args: &[&str]| text(&run(args, &[]).stdout).to_owned();
    assert_eq!(said(&["help"]), said(&["--help"]));
    assert_eq!(said(&["help", "audit"]), said(&["audit", "--help"]));
    assert!(said(&["help", "audit"]).contains("--repair"));
    assert_eq!(said(&["version"]), said(&["--version"]));
    for (args, expected) in [
        (&["chek"][..], "did you mean 'check'?"),
        (&["audit", "--repiar"], "did you mean '--repair'?"),
        (&["help", "tempalte"], "did you mean 'template'?"),
    ] {
        let output = run(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

#[test]
fn a_plugin_is_critical_without_an_answer_and_unknown_with_wrong_settings() {
    let output = run(&["health", "--plugin"], &[("HTTP_PORT", "9")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).starts_with("AUDIOHOOK CRITICAL: no response from http://127.0.0.1:9/health"));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let output = run(&["health", "--plugin"], &[("HTTP_PORT", "x")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).starts_with("AUDIOHOOK UNKNOWN: HTTP_PORT=x"), "{}", text(&output.stdout));
}

#[test]
fn every_fault_of_the_settings_is_one_line_and_status_2() {
    let settings = [
        ("GENESYS_ENV", "https://login.mypurecloud.com"),
        ("GENESYS_CLIENT_SECRET", "hush-hush-hush"),
        ("GENESYS_CLIENT_SECRET_FILE", "/nowhere/secret"),
        ("BULK_SIZE", "0"),
        ("ELASTIC_AUTH", "hush hush"),
    ];
    for command in [&[][..], &["check"], &["audit"]] {
        let output = run(command, &settings);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let error = text(&output.stderr);
        for name in settings.map(|(name, _)| name).into_iter().chain(["GENESYS_CLIENT_ID"]) {
            let subject = |line: &&str| {
                line.strip_prefix("audiohook-collector: ")
                    .and_then(|line| line.strip_prefix(name))
                    .is_some_and(|rest| rest.starts_with([':', '=']))
            };
            assert_eq!(error.lines().filter(subject).count(), 1, "{name} in\n{error}");
        }
        assert_eq!(error.lines().count(), 6, "{error}");
        assert!(!error.contains("hush"), "{error}");
        // The report of `check` names each of them too.
        let marks = text(&output.stdout).lines().filter(|line| line.starts_with("✘ settings: ")).count();
        assert_eq!(marks, if command == ["check"] { 6 } else { 0 }, "{command:?}");
        assert!(!text(&output.stdout).contains("hush"), "{command:?}");
    }
}

#[test]
fn a_named_settings_file_must_be_there_for_every_command() {
    for command in ["demo", "simulate", "check", "audit", "health", "replay", "template"] {
        let output = run(&[command, "--env-file", "/nowhere/env"], &[]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("/nowhere/env: cannot read the settings file"), "{command}");
    }
}

#[test]
fn health_needs_no_credentials_and_is_1_where_nothing_answers() {
    let output = run(&["health"], &[("HTTP_PORT", "9"), ("BULK_SIZE", "0")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("http://127.0.0.1:9/health"), "{}", text(&output.stderr));
}

#[test]
fn check_says_in_json_too_that_the_settings_are_wrong() {
    let output = run(&["check", "--json"], &[("BULK_SIZE", "0"), ("LOG_LEVEL", "loud")]);
    assert_eq!(output.status.code(), Some(2));
    // In the shape of every other check, down to the order of its keys.
    assert!(text(&output.stdout).starts_with(r#"{"ok":false,"checks":[{"name":"settings","ok":false,"found":"#));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    let checks = answer["checks"].as_array().expect("checks");
    for fault in ["BULK_SIZE=0", "LOG_LEVEL=loud"] {
        let of_it = |check: &&serde_json::Value| check["found"].as_str().expect("text").contains(fault);
        assert_eq!(checks.iter().filter(of_it).count(), 1, "{answer}");
    }
    assert!(checks.iter().all(|check| !check["found"].as_str().expect("text").contains('\n')), "{answer}");
}
