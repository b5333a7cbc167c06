use super::super::table::Kind;
use super::*;
use std::ffi::OsString;
use std::time::Duration;

const CREDENTIALS: [(&str, &str); 3] = [
    ("GENESYS_ENV", "mypurecloud.com"),
    ("GENESYS_CLIENT_ID", "3f2b8c1e-0000-4000-8000-000000000001"),
    ("GENESYS_CLIENT_SECRET", "s3cr3t-s3cr3t"),
];

/// A temporary folder, removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("audiohook-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("file");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn environment(values: &[(&str, &str)]) -> Environment {
    values.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn load_with(need: Need, values: &[(&str, &str)], env_file: Option<&Path>) -> Result<Config, Errors> {
    Config::load(need, &environment(values), env_file)
}

fn load(values: &[(&str, &str)]) -> Result<Config, Errors> {
    load_with(Need::Credentials, &[&CREDENTIALS, values].concat(), None)
}

/// The only error of these settings.
fn error(values: &[(&str, &str)]) -> String {
    let errors = load(values).expect_err(&format!("{values:?}"));
    assert_eq!(errors.0.len(), 1, "{errors}");
    errors.to_string()
}

#[test]
fn the_three_credentials_are_enough() {
    let config = load(&[]).expect("valid");
    assert_eq!(config.genesys.login_url, "https://login.mypurecloud.com");
    assert_eq!(config.genesys.api_url, "https://api.mypurecloud.com");
    assert_eq!(config.genesys.delivery, Delivery::Auto);
    assert_eq!(config.genesys.topics_file, Path::new("./topics.json"));
    assert_eq!(config.genesys.topics.as_deref(), Some(&["v2.operations.events.AUDIOHOOK-*".to_owned()][..]));
    assert_eq!(config.instance, "mypurecloud.com");
    assert_eq!(config.catch_up.interval, Duration::from_secs(60));
    assert_eq!(config.catch_up.overlap, Duration::from_secs(900));
    assert_eq!(config.catch_up.rate, 150);
    assert_eq!(config.catch_up.start, Duration::from_secs(864_000));
    assert_eq!(config.output.file, Path::new("./audiohook_events.jsonl"));
    assert_eq!(config.output.state_file, Path::new("./audiohook_events.jsonl.state"));
    assert_eq!((config.output.max_file_size, config.output.backup_count), (10_485_760, 5));
    assert!(config.output.redact_fields.is_empty());
    assert!(config.log.console && config.log.level == log::LevelFilter::Info && config.log.format == LogFormat::Json);
    assert!(config.elastic.is_none());
    assert_eq!((config.http.host.as_str(), config.http.port), ("0.0.0.0", 8077));
    assert!(config.http.token.is_none());
    assert_eq!(config.reconnect.delay, Duration::from_secs(5));
    assert_eq!(config.reconnect.max_delay, Duration::from_secs(60));
    assert!(config.network.https_proxy.is_none() && config.network.no_proxy.is_empty());
    assert!(config.notices.is_empty());
}

#[test]
fn the_predecessors_settings_work_unchanged() {
    let folder = Folder::new("predecessor");
    let path = folder.file(
        "env",
        "# Genesys Cloud\nGENESYS_ENV=usw2.pure.cloud\nGENESYS_CLIENT_ID=abc\nGENESYS_CLIENT_SECRET=a$b%c\\n#d\n\n\
         OUTPUT_FILE=./audiohook_events.jsonl\nMAX_FILE_SIZE=10485760  # 10MB\nBACKUP_COUNT=5\nCONSOLE_OUTPUT=true\n\
         ELASTIC_URL=http://elasticsearch:9200\nELASTIC_AUTH=elastic:changeme\nELASTIC_INDEX=genesys-audiohook\nBULK_SIZE=50\n\
         TOPICS_FILE=./topics.json\nHTTP_HOST=0.0.0.0\nHTTP_PORT=8077\nRECONNECT_DELAY=5.0\nMAX_RECONNECT_DELAY=60.0\n",
    );
    let config = load_with(Need::Credentials, &[], Some(Path::new(&path))).expect("valid");
    assert_eq!(config.output.max_file_size, 10_485_760);
    assert_eq!(config.genesys.client_secret.expose(), "a$b%c\\n#d");
    let elastic = config.elastic.clone().expect("on");
    assert_eq!(elastic.urls, ["http://elasticsearch:9200"]);
    assert_eq!(elastic.authorization.expect("set").expose(), "Basic ZWxhc3RpYzpjaGFuZ2VtZQ==");
    assert_eq!(config.notices.len(), 1, "credentials in clear");
}

#[test]
fn the_example_starts_the_program_once_the_credentials_are_filled_in() {
    let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example"));
    load_with(Need::Credentials, &CREDENTIALS, Some(example)).expect("valid");
    let errors = load_with(Need::Credentials, &[], Some(example)).expect_err("credentials missing");
    let subjects: Vec<&str> = errors.0.iter().map(|error| error.subject.as_str()).collect();
    assert_eq!(subjects, ["GENESYS_ENV", "GENESYS_CLIENT_ID", "GENESYS_CLIENT_SECRET"]);
}

#[test]
fn the_environment_wins_and_empty_is_unset() {
    let folder = Folder::new("precedence");
    let path = folder.file("env", "HTTP_PORT=1000\nBULK_SIZE=7\nCATCH_UP_RATE=\nno_proxy=a\n");
    let env =
        [&CREDENTIALS[..], &[("HTTP_PORT", "2000"), ("BULK_SIZE", ""), ("NO_PROXY", ""), ("ELASTIC_URL", "https://e")]]
            .concat();
    let config = load_with(Need::Credentials, &env, Some(Path::new(&path))).expect("valid");
    assert_eq!(config.http.port, 2000);
    assert_eq!(config.elastic.expect("on").bulk_size, 7);
    assert_eq!(config.catch_up.rate, 150);
    assert_eq!(config.network.no_proxy, ["a"]);
}

#[test]
fn a_named_settings_file_must_be_there_and_each_bad_line_is_told() {
    let errors = load_with(Need::Credentials, &CREDENTIALS, Some(Path::new("/nowhere/env"))).expect_err("missing");
    assert!(errors.to_string().starts_with("/nowhere/env: cannot read the settings file: "), "{errors}");
    let folder = Folder::new("lines");
    let path = folder.file("env", "HTTP_PORT=1\nwhat is this\nHTTP_PORT=x\n");
    let errors = load_with(Need::Credentials, &CREDENTIALS, Some(Path::new(&path))).expect_err("bad");
    assert_eq!(errors.0.len(), 2, "{errors}");
    assert_eq!(errors.0[0].to_string(), format!("{path} line 2: not NAME=value"));
    assert!(errors.0[1].to_string().starts_with("HTTP_PORT=x: must be a whole number"));
}

#[test]
fn every_error_is_told_at_once() {
    let bad = [
        ("GENESYS_ENV", "https://login.mypurecloud.com"),
        ("GENESYS_LOGIN_URL", "http://login.example"),
        ("GENESYS_API_URL", "api"),
        ("GENESYS_DELIVERY", "both"),
        ("CATCH_UP_INTERVAL", "0"),
        ("CATCH_UP_OVERLAP", "NaN"),
        ("CATCH_UP_RATE", "0"),
        ("CATCH_UP_START", "-1"),
        ("OUTPUT_FILE", "/"),
        ("MAX_FILE_SIZE", "10XB"),
        ("BACKUP_COUNT", "-1"),
        ("CONSOLE_OUTPUT", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("ELASTIC_INDEX", "Upper"),
        ("BULK_SIZE", "0"),
        ("ELASTIC_FLUSH_INTERVAL", "inf"),
        ("ELASTIC_CA_FILE", "/nowhere/ca.pem"),
        ("ELASTIC_SETUP", "2"),
        ("ELASTIC_BACKLOG_MAX", "0"),
        ("HTTP_HOST", "0.0.0.0:1"),
        ("HTTP_PORT", "65536"),
        ("RECONNECT_DELAY", "1e9"),
        ("MAX_RECONNECT_DELAY", "99999999999999999999"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("HTTPS_PROXY", "socks5://me:hush@proxy:1"),
    ];
    let errors = load(&bad).expect_err("bad");
    for (name, _) in bad {
        assert_eq!(errors.0.iter().filter(|error| error.subject == name).count(), 1, "{name} in\n{errors}");
    }
    assert_eq!(errors.0.len(), bad.len(), "{errors}");
    assert_eq!(errors.to_string().lines().count(), bad.len());
    assert!(!errors.to_string().contains("hush"));
}

#[test]
fn no_error_shows_a_secret() {
    let folder = Folder::new("secrets");
    let file = folder.file("secret", "from-the-file\n");
    let control = "line-one\nhush";
    for values in [
        &[("ELASTIC_AUTH", "hush hush")][..],
        &[("ELASTIC_AUTH", control)],
        &[("HTTP_TOKEN", "hush hush")],
        &[("GENESYS_CLIENT_SECRET", control)],
        &[("ELASTIC_URL", "https://me:hush@host?x")],
        &[("ELASTIC_URL", "https://me:hush@a,https://me:hush2@b")],
        &[("ELASTIC_URL", "https://me:hush@a"), ("ELASTIC_AUTH", "me:hush")],
        &[("HTTPS_PROXY", "https://me:hush@proxy:1")],
        &[("GENESYS_LOGIN_URL", "https://me:hush@host")],
        &[("HTTP_TOKEN", "hush"), ("HTTP_TOKEN_FILE", &file)],
    ] {
        let text = error(values);
        assert!(!text.contains("hush") && !text.contains("from-the-file"), "{text}");
    }
}

#[test]
fn a_secret_comes_from_its_file_without_the_line_break_at_its_end() {
    let folder = Folder::new("files");
    let secret = folder.file("secret", "abc def\r\n");
    let empty = folder.file("empty", "\n");
    let config =
        load(&[("GENESYS_CLIENT_SECRET", ""), ("GENESYS_CLIENT_SECRET_FILE", &secret), ("HTTP_TOKEN_FILE", &empty)])
            .expect("valid");
    assert_eq!(config.genesys.client_secret.expose(), "abc def");
    assert!(config.http.token.is_none());
    assert_eq!(
        error(&[("GENESYS_CLIENT_SECRET_FILE", &secret)]),
        "GENESYS_CLIENT_SECRET: is set together with GENESYS_CLIENT_SECRET_FILE: remove one of them"
    );
    let text = error(&[("ELASTIC_AUTH_FILE", "/nowhere/auth")]);
    assert!(text.starts_with("ELASTIC_AUTH_FILE=/nowhere/auth: cannot be read: "), "{text}");
    assert!(error(&[("HTTP_TOKEN_FILE", &folder.file("two", "a\nb\n"))]).contains("more than one line"));
    assert!(error(&[("GENESYS_CLIENT_SECRET", ""), ("GENESYS_CLIENT_SECRET_FILE", &empty)]).contains("not set"));
}

#[test]
fn a_secret_may_be_one_of_systemds_credentials() {
    let folder = Folder::new("credentials");
    folder.file("client-secret", "from systemd\n");
    folder.file("http-token", "\n");
    let directory = folder.0.display().to_string();
    let config = load(&[("GENESYS_CLIENT_SECRET", ""), ("CREDENTIALS_DIRECTORY", &directory)]).expect("valid");
    assert_eq!(config.genesys.client_secret.expose(), "from systemd");
    assert!(config.http.token.is_none(), "an empty one is none");
    let config = load(&[("GENESYS_CLIENT_SECRET", "set"), ("CREDENTIALS_DIRECTORY", &directory)]).expect("valid");
    assert_eq!(config.genesys.client_secret.expose(), "set", "what is set comes first");
}

#[test]
fn addresses_are_https_or_on_this_machine() {
    for (url, expected) in [
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://127.3.2.1:8080", "http://127.3.2.1:8080"),
        ("http://[::1]:8080/x/", "http://[::1]:8080/x"),
        ("https://login.example", "https://login.example"),
    ] {
        assert_eq!(load(&[("GENESYS_LOGIN_URL", url)]).expect(url).genesys.login_url, expected);
    }
    assert!(error(&[("GENESYS_API_URL", "http://10.0.0.1")]).contains("must begin with https://"));
    let config = load(&[("GENESYS_ENV", "new1.pure.cloud")]).expect("any domain");
    assert!(config.notices[0].starts_with("GENESYS_ENV=new1.pure.cloud: this version does not know"));
}

#[test]
fn the_clusters_addresses_may_be_several_and_carry_the_password() {
    let url = "https://me:p%40ss@a:9200/es/, http://b:9200,https://a:9200/es";
    let elastic = load(&[("ELASTIC_URL", url)]).expect("valid").elastic.expect("on");
    assert_eq!(elastic.urls, ["https://a:9200/es", "http://b:9200"]);
    assert_eq!(elastic.authorization.expect("set").expose(), "Basic bWU6cEBzcw==");
    assert!(error(&[("ELASTIC_URL", "localhost:9200")]).contains("must begin with https://"));
}

#[test]
fn settings_of_a_disabled_cluster_are_checked_too() {
    assert!(error(&[("BULK_SIZE", "many")]).starts_with("BULK_SIZE=many"));
    assert!(error(&[("ELASTIC_AUTH", "Bearer ")]).starts_with("ELASTIC_AUTH: "));
    assert!(error(&[("GENESYS_DELIVERY", "websocket"), ("CATCH_UP_INTERVAL", "x")]).starts_with("CATCH_UP_INTERVAL=x"));
}

#[test]
fn settings_must_fit_each_other() {
    assert!(error(&[("RECONNECT_DELAY", "61")]).contains("MAX_RECONNECT_DELAY, which is 60"));
    assert!(error(&[("MAX_RECONNECT_DELAY", "4")]).contains("RECONNECT_DELAY, which is 5"));
    for suffix in ["", ".1", ".12", ".dead", ".unreadable"] {
        let state = format!("/tmp/../tmp/x.jsonl{suffix}");
        let text = error(&[("OUTPUT_FILE", "/tmp/x.jsonl"), ("STATE_FILE", &state)]);
        assert!(text.starts_with("STATE_FILE=") && text.contains("a separate file"), "{text}");
    }
    load(&[("OUTPUT_FILE", "/tmp/x.jsonl"), ("STATE_FILE", "/tmp/x.jsonl.state")]).expect("the default, named");
    load(&[("OUTPUT_FILE", "/tmp/x.jsonl"), ("STATE_FILE", "/var/tmp/x.jsonl.1")]).expect("another folder");
    let folder = Folder::new("collision");
    let path = folder.file("env", "");
    let values = [&CREDENTIALS[..], &[("OUTPUT_FILE", path.as_str())]].concat();
    let errors = load_with(Need::Credentials, &values, Some(Path::new(&path))).expect_err("collides");
    assert!(errors.to_string().contains("the settings file"), "{errors}");
    let topics = folder.file("topics.json", "{\"topics\":[]}");
    assert!(error(&[("TOPICS_FILE", &topics), ("OUTPUT_FILE", &topics)]).starts_with("TOPICS_FILE="));
    for name in ["OUTPUT_FILE", "STATE_FILE"] {
        let text = error(&[(name, "./topics.json")]);
        assert_eq!(text, format!("{name}=./topics.json: must be a separate file: this one is TOPICS_FILE"));
    }
}

#[test]
fn no_error_hides_another() {
    for (values, subjects) in [
        (&[("ELASTIC_URL", "bad"), ("ELASTIC_AUTH", "Bearer ")][..], &["ELASTIC_AUTH", "ELASTIC_URL"][..]),
        (&[("ELASTIC_URL", "https://:x@host"), ("ELASTIC_AUTH", "Bearer ")], &["ELASTIC_AUTH", "ELASTIC_URL"]),
        (&[("ELASTIC_URL", "https://me:x@host"), ("ELASTIC_AUTH", "Bearer ")], &["ELASTIC_AUTH", "ELASTIC_URL"]),
        (&[("MAX_FILE_SIZE", "0"), ("STATE_FILE", "./audiohook_events.jsonl")], &["MAX_FILE_SIZE", "STATE_FILE"]),
        (&[("OUTPUT_FILE", "/"), ("STATE_FILE", "./topics.json")], &["OUTPUT_FILE", "STATE_FILE"]),
        (&[("STATE_FILE", "/"), ("OUTPUT_FILE", "./topics.json")], &["OUTPUT_FILE", "STATE_FILE"]),
    ] {
        let errors = load(values).expect_err("bad");
        let mut found: Vec<&str> = errors.0.iter().map(|error| error.subject.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, subjects, "{errors}");
    }
}

/// If both addresses are set, even to a wrong value, any name is valid for the region.
#[test]
fn a_bad_address_does_not_make_a_error_of_the_region() {
    let values = [
        ("GENESYS_ENV", "sim"),
        ("GENESYS_LOGIN_URL", "http://127.0.0.1:1"),
        ("GENESYS_API_URL", "http://api.example"),
    ];
    assert!(error(&values).starts_with("GENESYS_API_URL="));
}

#[test]
fn a_topics_file_that_was_named_must_be_there() {
    assert!(
        error(&[("TOPICS_FILE", "/nowhere/topics.json")])
            .contains("TOPICS_FILE=/nowhere/topics.json: cannot read the file")
    );
    load(&[("TOPICS_FILE", "./topics.json")]).expect("the default, named");
}

#[test]
fn the_proxy_is_known_by_either_name() {
    for (name, value, expected) in [
        ("HTTPS_PROXY", "http://me:p%40ss@proxy:3128/", "http://me:p%40ss@proxy:3128"),
        ("https_proxy", "proxy:3128", "http://proxy:3128"),
        ("https_proxy", "http://Proxy", "http://proxy:80"),
    ] {
        let config = load(&[(name, value), ("no_proxy", "localhost, .corp,10.0.0.0/8 *.x")]).expect(value);
        assert_eq!(config.network.https_proxy.expect("set").expose(), expected);
        assert_eq!(config.network.no_proxy, ["localhost", ".corp", "10.0.0.0/8", "*.x"]);
    }
}

#[test]
fn redacted_fields_keep_their_case() {
    let config = load(&[("REDACT_FIELDS", "phoneNumber, entityName,phoneNumber")]).expect("valid");
    assert_eq!(config.output.redact_fields, ["phoneNumber", "entityName"]);
}

#[test]
fn zero_has_a_meaning_where_it_is_named() {
    let config = load(&[("CATCH_UP_START", "0"), ("BACKUP_COUNT", "0")]).expect("valid");
    assert!(config.catch_up.start.is_zero() && config.output.backup_count == 0);
}

#[test]
fn each_command_needs_what_it_needs() {
    load_with(Need::Nothing, &[], None).expect("nothing");
    assert!(load_with(Need::Nothing, &[("HTTP_PORT", "x")], None).is_err());
    let errors = load_with(Need::Cluster, &[], None).expect_err("no cluster");
    assert!(errors.to_string().starts_with("ELASTIC_URL: not set"), "{errors}");
    let template = load_with(Need::Template, &[("ELASTIC_INDEX", "logs-x")], None).expect("no cluster needed");
    assert_eq!(template.elastic.expect("the settings").index, "logs-x");
    assert_eq!(load_http(&environment(&[("BULK_SIZE", "x")]), None).expect("only HTTP_*").port, 8077);
    assert!(load_http(&environment(&[("HTTP_PORT", "x")]), None).is_err());
}

#[test]
fn text_that_is_not_utf8_is_a_error() {
    use std::os::unix::ffi::OsStringExt;
    let environment = [("OUTPUT_FILE".into(), OsString::from_vec(vec![b'x', 0xff]))].into();
    let errors = Config::load(Need::Nothing, &environment, None).expect_err("not UTF-8");
    assert!(errors.to_string().contains("must be UTF-8"), "{errors}");
}

#[test]
fn the_settings_show_no_secret_when_printed() {
    let values =
        [("HTTPS_PROXY", "http://me:hush@proxy:1"), ("ELASTIC_URL", "https://me:hush@host"), ("HTTP_TOKEN", "hush")];
    let text = format!("{:?}", load(&values).expect("valid"));
    assert!(!text.contains("hush") && !text.contains("s3cr3t") && !text.contains("Basic"), "{text}");
}

#[test]
fn a_file_of_certificates_must_hold_one() {
    let folder = Folder::new("certificates");
    let good = folder.file("ca.pem", "# ours\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let config = load(&[("SSL_CERT_FILE", &good), ("ELASTIC_CA_FILE", &good)]).expect("valid");
    assert_eq!(config.network.ssl_cert_file.as_deref(), Some(Path::new(&good)));
    let empty = folder.file("empty.pem", "");
    for name in ["SSL_CERT_FILE", "ELASTIC_CA_FILE"] {
        assert!(error(&[(name, &empty)]).contains("no certificate"));
    }
}

/// No settings file makes the program panic, or leads to an error of more than one line.
#[test]
fn no_settings_file_causes_a_panic_or_a_long_error() {
    let pieces = [
        "X",
        "=",
        "\"",
        "'",
        "#",
        " ",
        "\t",
        "\n",
        "\r",
        "export ",
        "HTTP_PORT",
        "ELASTIC_URL",
        "ELASTIC_AUTH",
        "GENESYS_ENV",
        "HTTPS_PROXY",
        "MAX_FILE_SIZE",
        "CATCH_UP_START",
        "HTTP_HOST",
        "STATE_FILE",
        "://",
        "https",
        "http",
        "@",
        ":",
        "/",
        "[",
        "]",
        "::1",
        "%",
        "%4",
        "%zz",
        "9",
        "-",
        ".",
        ",",
        "MB",
        "ü",
        "…",
        "\u{0}",
        "\u{1b}",
        "user:pass",
        "Bearer ",
        "ApiKey ",
        "inf",
    ];
    let folder = Folder::new("noise");
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut draw = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..2_000 {
        let text: String = (0..draw(60)).map(|_| pieces[draw(pieces.len())]).collect();
        let path = folder.file("env", &text);
        if let Err(errors) = load_with(Need::Nothing, &[], Some(Path::new(&path))) {
            assert_eq!(errors.to_string().lines().count(), errors.0.len(), "{text:?}");
        }
    }
}

#[test]
fn a_name_that_resembles_a_setting_is_refused_and_others_are_not() {
    let folder = Folder::new("names");
    for (name, meant) in [
        ("HTPP_PORT", "HTTP_PORT"),
        ("REDACT_FIELD", "REDACT_FIELDS"),
        ("GENESYS_EMV", "GENESYS_ENV"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("http_port", "HTTP_PORT"),
    ] {
        assert_eq!(error(&[(name, "1")]), format!("{name}: is not a setting; did you mean {meant}?"));
        load(&[(name, "")]).expect("without a value it does nothing");
        let path = folder.file("env", &format!("{name}=1\n"));
        let errors = load_with(Need::Credentials, &CREDENTIALS, Some(Path::new(&path))).expect_err(name);
        assert_eq!(errors.to_string(), format!("{name} in {path}: is not a setting; did you mean {meant}?"));
    }
    let others = [
        ("HTTP_PROXY", "http://proxy:1"),
        ("http_proxy", "proxy:1"),
        ("ALL_PROXY", "x"),
        ("HTTP_USER_AGENT", "x"),
        ("HTTP_SERVICE_HOST", "10.0.0.1"),
        ("HTTP_SERVICE_PORT", "80"),
        ("HTTP_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("SSL_CERT_DIR", "/etc/ssl"),
        ("HOME", "/root"),
    ];
    assert!(load(&others).expect("names of others").notices.is_empty());
    let path = folder.file("env", "HTTP_PROXY=x\nGREETING=hello\n");
    let config = load_with(Need::Credentials, &CREDENTIALS, Some(Path::new(&path))).expect("notices");
    assert_eq!(config.notices.len(), 2, "{:?}", config.notices);
    assert!(config.notices.iter().any(|notice| notice.starts_with("GREETING in ")), "{:?}", config.notices);
}

#[test]
fn what_editors_and_docker_put_around_a_value_goes_or_is_reported() {
    let folder = Folder::new("marks");
    let secret = folder.file("secret", "\u{feff}abc\r\n\r\n");
    let config = load(&[
        ("GENESYS_CLIENT_SECRET", ""),
        ("GENESYS_CLIENT_SECRET_FILE", &secret),
        ("HTTP_TOKEN", "\u{feff}tok\r\n"),
        ("HTTP_PORT", "8078\r"),
    ]);
    let config = config.expect("valid");
    assert_eq!(config.genesys.client_secret.expose(), "abc");
    assert_eq!((config.http.token.expect("set").expose(), config.http.port), ("tok", 8078));
    for quoted in ["\"hush\"", "'hush'"] {
        for name in ["GENESYS_CLIENT_SECRET", "HTTP_TOKEN", "OUTPUT_FILE", "GENESYS_ENV"] {
            let text = error(&[(name, quoted)]);
            assert!(text.starts_with(&format!("{name}: ")) && text.contains("docker --env-file"), "{text}");
        }
    }
    for padded in [" hush", "hush ", "hush\t"] {
        let file = folder.file("padded", &format!("{padded}\n"));
        for values in [&[("HTTP_TOKEN", padded)][..], &[("HTTP_TOKEN_FILE", &file)]] {
            let text = error(values);
            assert!(text.contains("white space") && !text.contains("hush"), "{text}");
        }
    }
}

#[test]
fn the_outputs_link_is_followed_once_and_its_target_must_be_a_regular_file() {
    let folder = Folder::new("links");
    std::fs::create_dir_all(folder.0.join("real")).expect("folder");
    let link = |name: &str, target: &str| {
        let path = folder.0.join(name);
        std::os::unix::fs::symlink(target, &path).expect("link");
        path.display().to_string()
    };
    let config = load(&[("OUTPUT_FILE", &link("events.jsonl", "real/events.jsonl"))]).expect("valid");
    assert_eq!(config.output.file, folder.0.join("real/events.jsonl"));
    assert_eq!(
        config.output.state_file,
        folder.0.join("events.jsonl.state"),
        "where it was before links were followed"
    );
    for name in ["OUTPUT_FILE", "STATE_FILE"] {
        let text = error(&[(name, "/dev/null")]);
        assert_eq!(text, format!("{name}=/dev/null: must be a regular file: this is a device"));
    }
    assert!(error(&[("STATE_FILE", &link("null", "/dev/null"))]).contains("a device"));
}

#[test]
fn a_retention_and_an_instance_are_optional() {
    let values = [("ELASTIC_URL", "https://e"), ("ELASTIC_RETENTION", "90d"), ("INSTANCE_NAME", " Paris 2 ")];
    let config = load(&values).expect("valid");
    assert_eq!(config.elastic.expect("on").retention, Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(config.instance, "Paris 2");
    assert!(error(&[("ELASTIC_RETENTION", "90")]).contains("such as 90d"));
    assert!(error(&[("INSTANCE_NAME", &"x".repeat(101))]).contains("1 to 100"));
}

/// Every setting of a parsed kind is read: a wrong value is an error.
#[test]
fn every_row_is_read() {
    for row in super::super::table::rows() {
        if matches!(row.kind, Kind::Secret | Kind::SecretFile | Kind::Path | Kind::List | Kind::Text | Kind::Url) {
            continue;
        }
        assert!(error(&[(row.name, "/nowhere/\u{fffd}")]).starts_with(row.name), "{}", row.name);
    }
}
