//! Every flag and every setting that is documented has a test that shows that it changes the result.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use superserve::config::KEYS;

use crate::process::{wait_for, with_argument};
use crate::skipped::is_root;
use crate::test::{Test, has_namespaces};

/// Command (empty: every command), flag, and the test that shows what it does.
const FLAGS: &[(&str, &str, &str)] = &[
    ("", "--allow-path", "what_lies_outside_is_not_touched"),
    ("", "--allow-sh", "other_programs_run_where_they_are_allowed"),
    ("", "--color", "colours_only_where_they_are_wanted"),
    ("", "--dry-run", "changes_nothing_whatever_the_command"),
    ("", "--help", "each_says_what_it_is_for_and_how"),
    ("", "--json", "prints_json_with_the_pages_keys_in_the_pages_order"),
    ("", "--max-memory", "limits_are_flags_and_what_passes_them_is_shown"),
    ("", "--max-operations", "limits_are_flags_and_what_passes_them_is_shown"),
    ("", "--max-time", "limits_are_flags_and_what_passes_them_is_shown"),
    ("", "--no-trunc", "shows_titles_whole_if_asked"),
    ("", "--version", "the_version_is_told"),
    ("", "--yes", "questions_never_hang"),
    ("agents list", "--status", "agents_are_listed_by_how_far_their_dependencies_are"),
    ("", "--context", "contexts_are_names_of_servers"),
    ("", "--url", "a_login_is_kept_in_the_originals_format_and_a_failed_one_changes_nothing"),
    ("login", "--api-key", "a_login_is_kept_in_the_originals_format_and_a_failed_one_changes_nothing"),
    ("serve", "--cors-origin", "pages_that_are_allowed_may_use_it"),
    ("serve", "--insecure", "off_loopback_it_wants_tls_or_to_be_told_otherwise"),
    ("serve", "--listen", "others_need_a_token_and_the_owner_none"),
    ("serve", "--public-url", "pages_that_are_allowed_may_use_it"),
    ("serve", "--tls-cert", "with_a_certificate_others_come_over_tls"),
    ("serve", "--tls-key", "with_a_certificate_others_come_over_tls"),
    ("tokens approve", "--deny", "a_program_without_a_browser_logs_in_by_its_owners_word"),
    ("tokens approve", "--name", "a_program_without_a_browser_logs_in_by_its_owners_word"),
    ("tokens approve", "--scope", "a_program_without_a_browser_logs_in_by_its_owners_word"),
    ("tokens create", "--expires", "tokens_are_listed_expire_and_are_revoked"),
    ("tokens create", "--scope", "a_token_may_do_what_its_scope_says"),
    ("deploy", "--dir", "a_folder_with_its_yaml"),
    ("deploy", "--no-wait", "a_message_waits_until_they_are_installed"),
    ("deploy", "--name", "a_script_under_a_name"),
    ("deploy", "--port", "a_port_makes_an_http_agent"),
    ("help functions", "--markdown", "the_page_of_functions_is_what_the_program_prints"),
    ("init", "--dir", "without_python_it_is_a_shell_script"),
    ("ops count-messages", "--agent", "count_messages"),
    ("ops end-idle", "--agent", "end_idle"),
    ("ops end-idle", "--over", "end_idle"),
    ("ops prune", "--agent", "prune"),
    ("ops prune", "--keep", "prune"),
    ("ops prune", "--older-than", "prune"),
    ("ops prune", "--per-agent", "prune"),
    ("ops report", "--agent", "report"),
    ("ops resume-last", "--agent", "resume_last"),
    ("run", "--sandbox", "none_counts_only_for_a_server_that_the_command_starts"),
    ("run", "--single", "single_takes_one_turn"),
    ("script", "--check", "a_check_tells_all_that_is_wrong_and_runs_nothing"),
    ("scripts copy", "--force", "a_bundled_script_is_copied_to_be_changed"),
    ("serve", "--log-format", "the_log_is_text_or_an_object_a_line"),
    ("serve", "--sandbox", "serve_takes_a_kind_of_sandbox"),
    ("serve", "--socket", "listens_where_it_is_told"),
    ("server logs", "--lines", "start_and_stop_say_so_and_may_be_said_twice"),
    ("server start", "--sandbox", "none_counts_only_for_a_server_that_the_command_starts"),
    ("sessions list", "--agent", "takes_an_agents_name_or_id"),
    ("sessions list", "--status", "takes_a_status_or_its_alias_in_any_case"),
    ("sessions list", "--watch", "a_terminal_shows_the_list_as_it_is"),
    ("sessions list", "--where", "takes_an_expression"),
    ("", "-y", "questions_never_hang"),
    ("sessions attach", "--follow", "follows_every_run_until_the_session_ends"),
    ("sessions cancel", "--agent", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions cancel", "--limit", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions cancel", "--sort", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions cancel", "--status", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions cancel", "--where", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions delete", "--agent", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions delete", "--limit", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions delete", "--sort", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions delete", "--status", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions delete", "--where", "forgetting_and_cancelling_take_conditions_too"),
    ("sessions end", "--agent", "those_that_a_condition_chooses"),
    ("sessions end", "--keep", "end_keeps_first_and_ends_only_what_is_kept"),
    ("sessions files", "--recursive", "lists_what_the_agent_has_made"),
    ("sessions files", "-r", "lists_what_the_agent_has_made"),
    ("sessions end", "--limit", "those_that_a_condition_chooses"),
    ("sessions end", "--quiet", "those_that_a_condition_chooses"),
    ("sessions end", "--select", "those_that_a_condition_chooses"),
    ("sessions end", "--sort", "those_that_a_condition_chooses"),
    ("sessions end", "--status", "those_that_a_condition_chooses"),
    ("sessions end", "--where", "those_that_a_condition_chooses"),
    ("sessions end", "-q", "those_that_a_condition_chooses"),
    ("sessions list", "--limit", "takes_the_first_so_many"),
    ("sessions list", "--quiet", "takes_the_first_so_many"),
    ("sessions list", "-q", "takes_the_first_so_many"),
    ("sessions list", "--select", "selects_fields_and_expressions"),
    ("sessions list", "--sort", "sorts_by_fields_and_expressions"),
    ("sessions wait", "--agent", "of_several_one_may_be_enough"),
    ("sessions wait", "--any", "of_several_one_may_be_enough"),
    ("sessions wait", "--limit", "of_several_one_may_be_enough"),
    ("sessions wait", "--sort", "of_several_one_may_be_enough"),
    ("sessions wait", "--status", "of_several_one_may_be_enough"),
    ("sessions wait", "--where", "of_several_one_may_be_enough"),
    ("test", "--filter", "some_by_name_and_many_files"),
    ("sessions wait", "--timeout", "a_time_that_is_over_is_told_with_124"),
    ("sessions wait", "--until", "what_can_not_come_any_more_is_told_with_1"),
    ("server logs", "-n", "start_and_stop_say_so_and_may_be_said_twice"),
];

/// Setting, and the test that shows what it does.
const SETTINGS: &[(&str, &str)] = &[
    ("dependencies.timeout", "an_installation_that_takes_too_long_is_stopped"),
    ("log.format", "the_log_is_text_or_an_object_a_line"),
    ("retention.ended", "what_is_past_its_time_goes_and_nothing_else"),
    ("retention.events", "what_is_past_its_time_goes_and_nothing_else"),
    ("sandbox", "serve_takes_a_kind_of_sandbox"),
    ("sandbox_require", "a_machine_that_can_not_isolate_fully_is_told_or_refused"),
    ("scripts", "commands_are_looked_for_in_another_folder"),
    ("server.cors", "pages_that_are_allowed_may_use_it"),
    ("server.idle_exit", "leaves_when_nobody_needs_it"),
    ("server.public_url", "pages_that_are_allowed_may_use_it"),
    ("server.rate_limit", "a_token_that_asks_too_often_is_told_when_to_come_again"),
    ("server.uid_base", "host_uids_begin_where_they_are_told"),
    ("session.expire_after", "sessions_expire_when_they_are_told"),
    ("session.max_warm", "the_least_recently_used_agents_make_room"),
    ("turn.quiet_ms", "silence_ends_a_turn_whose_end_can_not_be_seen"),
    ("turn.startup_timeout", "an_agent_that_never_listens_is_given_up"),
    ("turn.timeout", "a_turn_that_takes_too_long_is_stopped"),
];

/// The flags that a command's help names.
fn flags_of(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| {
        line.split([',', ' ', '[']).take_while(|word| word.is_empty() || word.starts_with('-'))
    });
    words.filter(|word| !word.is_empty() && *word != "-h" && *word != "-V").map(str::to_owned).collect()
}

/// Every command below `words` with its help.
fn helps(test: &Test, words: &[String]) -> Vec<(String, String)> {
    let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let help = test.args(&args).any_stdout().run().stdout;
    let below: Vec<String> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let mut all = vec![(words.join(" "), help)];
    for word in below {
        let words: Vec<String> = words.iter().cloned().chain([word]).collect();
        all.extend(helps(test, &words));
    }
    all
}

#[test]
fn each_has_its_test() {
    let test = Test::new();
    let all = helps(&test, &[]);
    assert!(all.len() > 25, "{} commands were found", all.len());
    let mut documented = BTreeSet::new();
    for (command, help) in &all {
        for flag in flags_of(help) {
            let is_global = FLAGS.iter().any(|(owner, name, _)| owner.is_empty() && *name == flag);
            documented.insert((if is_global { String::new() } else { command.clone() }, flag));
        }
    }
    let shown: BTreeSet<(String, String)> =
        FLAGS.iter().map(|(command, flag, _)| (command.to_string(), flag.to_string())).collect();
    assert_eq!(documented, shown, "documented, and shown by a test");
    let documented: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(documented, SETTINGS.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    let mut tests = String::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        tests += &fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
    }
    for name in FLAGS.iter().map(|(.., name)| name).chain(SETTINGS.iter().map(|(_, name)| name)) {
        assert!(tests.contains(&format!("\nfn {name}() {{")), "there is no test {name}");
    }
}

#[test]
fn the_version_is_told() {
    let test = Test::new();
    test.args(["--version"]).stdout(format!("superserve {}\n", env!("CARGO_PKG_VERSION"))).run();
}

#[test]
fn serve_takes_a_kind_of_sandbox() {
    let test = Test::new();
    let isolation = |serve: crate::command::Running| {
        let told = wait_for("the server", || {
            test.json(["server", "status", "--json"])["isolation"].as_str().map(str::to_owned)
        });
        serve.interrupt();
        assert_eq!(serve.finish().status, 0);
        told
    };
    assert_eq!(isolation(test.args(["serve", "--sandbox", "none"]).start()), "none");
    assert_eq!(isolation(test.args(["serve"]).env("SUPERSERVE_SANDBOX", "none").start()), "none");
    fs::write(test.home().join("config.toml"), "sandbox = 'none'\n").unwrap();
    assert_eq!(isolation(test.args(["serve"]).start()), "none");
    if has_namespaces() {
        assert_eq!(isolation(test.args(["serve", "--sandbox", "native"]).start()), "full");
        assert_eq!(
            isolation(test.args(["serve"]).env("SUPERSERVE_SANDBOX", "auto").start()),
            "full",
            "the environment goes before the file"
        );
    }
}

#[test]
fn commands_are_looked_for_in_another_folder() {
    let test = Test::new();
    test.write("mine/hello.rhai", "//! Hello.\n//! @example superserve hello\nprint(\"hello\");\n");
    test.args(["hello"]).stderr_part("hello").status(2).run();
    test.args(["hello"])
        .env("SUPERSERVE_SCRIPTS", test.work().join("mine").to_str().unwrap())
        .stdout("hello\n")
        .run();
}

#[test]
fn host_uids_begin_where_they_are_told() {
    if !is_root() || !has_namespaces() {
        skip!("only root's sessions get uids of their own");
    }
    let test = Test::new().env("SUPERSERVE_SERVER_UID_BASE", "1234567000");
    test.deploy("shell");
    let mark = format!("30{}.5", std::process::id());
    let id = test.create("shell");
    test.send(&id, &format!("sleep {mark} >/dev/null 2>&1 </dev/null & echo started"));
    let uid = wait_for("the sleeping process", || with_argument(&format!("sleep {mark}")).first()?.uid());
    assert!((1_234_567_000..1_234_568_000).contains(&uid), "{uid}");
}

#[test]
fn sessions_expire_when_they_are_told() {
    let test = Test::new().env("SUPERSERVE_SESSION_EXPIRE_AFTER", "1h");
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    assert_eq!(test.session(&id)["expires_at"], "2026-03-09T11:15:00Z");
    test.pass(Duration::from_secs(3599));
    test.stop_server();
    assert_eq!(test.status_of(&id), "idle");
    test.pass(Duration::from_secs(2));
    test.stop_server();
    assert_eq!(test.session(&id)["end_reason"], "expired");
}

#[test]
fn an_agent_that_never_listens_is_given_up() {
    let test = Test::new().env("SUPERSERVE_TURN_STARTUP_TIMEOUT", "300ms");
    test.deploy(test.agent("busy", "while :; do :; done"));
    let output = test.args(["run", "busy", "hello", "--json"]).any_stdout().any_stderr().any_status().run();
    assert!(output.stdout.contains("startup_timeout"), "{output:#?}");
    assert!(output.status == 7 || output.status == 124, "{output:#?}");
    assert_eq!(test.status_of("@last"), "failed");
}
