//! What is made from the two tables, of commands and of settings, and checked in: the example of the settings file, the
//! documentation's table, the manual's lists and the completions.
//!
//! `UPDATE=1 cargo test --test generated` writes them anew.

use std::fmt::Write;
use std::path::Path;

use audiohook_collector::COMMANDS;
use audiohook_collector::cli::{Command, EVERYWHERE, Opt, Value};
use audiohook_collector::config::table::{SECTIONS, rows};

/// The file is as it is made now.
fn assert_current(path: &str, made: &str) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(full.parent().expect("a folder")).expect("folder");
        std::fs::write(&full, made).expect("written");
    }
    let found = std::fs::read_to_string(&full).unwrap_or_default();
    let line = found.lines().zip(made.lines()).position(|(found, made)| found != made).map(|line| line + 1);
    assert!(found == made, "{path} differs at line {line:?}: run UPDATE=1 cargo test --test generated");
}

fn named() -> impl Iterator<Item = &'static &'static Command> {
    COMMANDS.iter().filter(|command| !command.name.is_empty())
}

fn names() -> String {
    named().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_of_the_settings_file() {
    let mut text = String::from(
        "# Settings of audiohook-collector. Copy this file to .env, fill in the first three, and start.\n#\n\
         # NAME=value, one per line. The environment wins over this file. Nothing is expanded: $, \\ and % are themselves.\n\
         # Every line below holds the default; a name without a value is unset.\n",
    );
    for section in &SECTIONS {
        let title = format!("# --- {} ", section.title);
        writeln!(text, "\n{title:-<119}\n").expect("text");
        for row in section.settings {
            writeln!(text, "# {}\n{}={}", row.help, row.name, row.default).expect("text");
        }
    }
    assert_current(".env.example", &text);
}

#[test]
fn the_table_of_settings() {
    let mut text = String::from(
        "# Settings\n\n\
         Settings are read from the environment and from a file, `./.env` or the one given with `--env-file`; the \
         environment takes\nprecedence. The file contains `NAME=value` lines, blank lines and `#` lines. A line may begin \
         with `export `, a value may be\nin quotes, and ` # comment` may follow an unquoted value. Nothing is expanded. An \
         empty value means unset. All errors are\nreported together, with exit status 2. A name that resembles a setting \
         is an error too.\n",
    );
    let cell = |text: &str| text.replace('|', "\\|");
    for section in &SECTIONS {
        write!(text, "\n## {}\n\n| name | default | values | |\n|---|---|---|---|\n", section.title).expect("text");
        for row in section.settings {
            let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
            writeln!(text, "| `{}` | {default} | {} | {} |", row.name, row.kind, cell(row.help)).expect("text");
        }
    }
    assert_current("docs/settings.md", &text);
}

#[test]
fn the_lists_of_the_manual() {
    let path = "src/install/audiohook-collector.8";
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the manual");
    let mut commands = String::new();
    for command in named() {
        let word = if command.word.is_empty() { String::new() } else { format!(" {}", roff(command.word)) };
        write!(commands, ".SS {}{word}\n{}\n", command.name, paragraphs(command.about)).expect("text");
        options(&mut commands, command.options);
    }
    let mut everywhere = String::new();
    options(&mut everywhere, &EVERYWHERE);
    let mut settings = String::new();
    for section in &SECTIONS {
        writeln!(settings, ".SS {}", roff(section.title)).expect("text");
        for row in section.settings {
            let default = if row.default.is_empty() { String::new() } else { format!(" ({})", row.default) };
            writeln!(settings, ".TP\n.B {}\n{}", roff(row.name), roff(&format!("{}{default}", row.help)))
                .expect("text");
        }
    }
    let mut made = manual;
    for (heading, list) in [("COMMANDS", commands), ("OPTIONS", everywhere), ("SETTINGS LIST", settings)] {
        made = with_list(&made, heading, &list);
    }
    assert_current(path, &made);
}

fn options(text: &mut String, options: &[Opt]) {
    for option in options {
        let value = option.value.placeholder();
        let value = if value.is_empty() { value } else { format!(" \" {value}\"") };
        writeln!(text, ".TP\n.BI \\-\\-{}{value}\n{}", roff(option.name), roff(&sentence(option.help))).expect("text");
    }
}

/// The help of an option as a sentence.
fn sentence(help: &str) -> String {
    let (first, rest) = help.split_at(1);
    format!("{}{rest}.", first.to_uppercase())
}

/// A text without roff's own signs, each sentence or line as it is.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn paragraphs(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { ".PP".to_owned() } else { roff(line) }).collect::<Vec<_>>().join("\n")
}

/// The manual with this list between its two marks.
fn with_list(manual: &str, heading: &str, list: &str) -> String {
    let (begin, end) = (format!(".\\\" {heading}: generated\n"), format!(".\\\" {heading}: end\n"));
    let (before, rest) = manual.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
    format!("{before}{begin}{list}{end}{after}")
}

#[test]
fn the_completion_for_bash() {
    let mut text = String::from(
        "# bash completion for audiohook-collector\n_audiohook_collector() {\n    \
         local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command='' each options\n    \
         COMPREPLY=()\n    for each in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n",
    );
    let either = names().replace(' ', " | ");
    writeln!(
        text,
        "        case $each in {either}) command=${{command:-$each}} ;; esac\n    done\n    case $before in"
    )
    .expect("text");
    let all = || COMMANDS.iter().flat_map(|command| command.options).chain(&EVERYWHERE);
    let of = |wanted: &dyn Fn(Value) -> bool| {
        let mut found: Vec<String> = all().filter(|o| wanted(o.value)).map(|o| format!("--{}", o.name)).collect();
        found.sort();
        found.dedup();
        found.join(" | ")
    };
    for (options, reply) in [
        (of(&|value| value == Value::File), "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")"),
        (of(&|value| value == Value::Folder), "mapfile -t COMPREPLY < <(compgen -d -- \"$word\")"),
    ] {
        if !options.is_empty() {
            writeln!(text, "        {options})\n            {reply}\n            return\n            ;;")
                .expect("text");
        }
    }
    let mut seen = Vec::new();
    for option in all() {
        if let Value::Word(words) = option.value
            && !seen.contains(&option.name)
        {
            seen.push(option.name);
            let words = words.join(" ");
            writeln!(
                text,
                "        --{})\n            mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\")\n            return\n            ;;",
                option.name
            )
            .expect("text");
        }
    }
    writeln!(text, "        {}) return ;;", of(&|value| matches!(value, Value::Text(_)))).expect("text");
    let everywhere: Vec<String> = EVERYWHERE.iter().map(|option| format!("--{}", option.name)).collect();
    writeln!(text, "    esac\n    options='{}'\n    case $command in", everywhere.join(" ")).expect("text");
    writeln!(text, "        '') options=\"{} $options\" ;;", names()).expect("text");
    for command in named() {
        let mut words: Vec<String> = command.options.iter().map(|option| format!("--{}", option.name)).collect();
        if command.word == "[COMMAND]" {
            words.push(names());
        }
        if !words.is_empty() {
            writeln!(text, "        {}) options=\"{} $options\" ;;", command.name, words.join(" ")).expect("text");
        }
    }
    text.push_str(
        "    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\")\n}\n\
         complete -o filenames -F _audiohook_collector audiohook-collector\n",
    );
    assert_current("src/install/completion.bash", &text);
}

#[test]
fn the_completion_for_zsh() {
    let mut text = String::from(
        "#compdef audiohook-collector\n_audiohook_collector() {\n  local -a commands everywhere\n  local state line\n  commands=(\n",
    );
    for command in named() {
        writeln!(text, "    '{}:{}'", command.name, zsh(command.summary)).expect("text");
    }
    text.push_str("  )\n  everywhere=(\n");
    for option in &EVERYWHERE {
        writeln!(text, "    {}", zsh_option(option)).expect("text");
    }
    text.push_str(
        "  )\n  _arguments -C $everywhere '1:command:->command' '*::option:->option'\n  case $state in\n    \
         command) _describe command commands ;;\n    option)\n      case $line[1] in\n",
    );
    for command in named() {
        let mut options: Vec<String> = command.options.iter().map(zsh_option).collect();
        if command.word == "[COMMAND]" {
            options.push(format!("'1:command:({})'", names()));
        }
        if !options.is_empty() {
            writeln!(text, "        {}) _arguments $everywhere {} ;;", command.name, options.join(" ")).expect("text");
        }
    }
    text.push_str(
        "        *) _arguments $everywhere ;;\n      esac\n      ;;\n  esac\n}\n_audiohook_collector \"$@\"\n",
    );
    assert_current("src/install/completion.zsh", &text);
}

fn zsh(text: &str) -> String {
    text.replace('\'', "’").replace('[', "(").replace(']', ")").replace(':', ";")
}

fn zsh_option(option: &Opt) -> String {
    let value = match option.value {
        Value::None => String::new(),
        Value::Text(name) => format!(":{}:", name.to_lowercase().replace(':', " ")),
        Value::File => ":file:_files".to_owned(),
        Value::Folder => ":folder:_files -/".to_owned(),
        Value::Word(words) => format!(":word:({})", words.join(" ")),
    };
    format!("'--{}[{}]{value}'", option.name, zsh(option.help))
}

#[test]
fn the_completion_for_fish() {
    let mut text = format!(
        "# fish completion for audiohook-collector\nset -l commands {}\ncomplete -c audiohook-collector -f\n",
        names()
    );
    for option in &EVERYWHERE {
        writeln!(text, "complete -c audiohook-collector {}", fish_option(option)).expect("text");
    }
    for command in named() {
        writeln!(
            text,
            "complete -c audiohook-collector -n \"not __fish_seen_subcommand_from $commands\" -a {} -d '{}'",
            command.name,
            fish(command.summary)
        )
        .expect("text");
    }
    for command in named() {
        let seen = format!("-n '__fish_seen_subcommand_from {}'", command.name);
        for option in command.options {
            writeln!(text, "complete -c audiohook-collector {seen} {}", fish_option(option)).expect("text");
        }
        if command.word == "[COMMAND]" {
            writeln!(text, "complete -c audiohook-collector {seen} -a '{}'", names()).expect("text");
        }
    }
    assert_current("src/install/completion.fish", &text);
}

fn fish(text: &str) -> String {
    text.replace('\'', "\\'")
}

fn fish_option(option: &Opt) -> String {
    let value = match option.value {
        Value::None => String::new(),
        Value::Text(_) => " -x".to_owned(),
        Value::File => " -r -F".to_owned(),
        Value::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
        Value::Word(words) => format!(" -x -a '{}'", words.join(" ")),
    };
    format!("-l {}{value} -d '{}'", option.name, fish(option.help))
}

#[test]
fn no_name_is_twice_in_the_table() {
    let mut names: Vec<&str> = rows().map(|row| row.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
