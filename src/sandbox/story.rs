//! What every driver must do: start, answer, end, be killed, die with its server.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use super::stage::*;
use super::*;

#[tokio::test]
async fn an_agent_answers_through_its_pipes() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let process = stage.start(sandbox, &["cat"]).await;
            rustix::io::write(&process.stdin, b"hello\n").unwrap();
            assert_eq!(read_line(&process.stdout).await, "hello", "{server:?} {}", sandbox.name());
            assert_eq!(finish(process).await, (String::new(), Exit::Code(0)));
        }
    }
}

#[tokio::test]
async fn exits_are_told_apart() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            for (script, exit) in [
                ("echo out; echo err >&2; exit 7", Exit::Code(7)),
                ("echo out; echo err >&2; kill -9 $$", Exit::Signal(9)),
                ("echo out; echo err >&2; kill -SEGV $$", Exit::Signal(11)),
            ] {
                let process = stage.start(sandbox, &["sh", "-c", script]).await;
                assert_eq!(process.tree.exited().await, exit, "{server:?} {}", sandbox.name());
                assert_eq!(process.tree.exited().await, exit, "the second time");
                assert_eq!(finish(process).await, ("out\nerr\n".to_owned(), exit));
            }
        }
    }
}

#[tokio::test]
async fn a_program_that_cannot_run_is_an_error_of_the_start() {
    for &server in servers() {
        let stage = Stage::new(server);
        let program = stage.path("workspace").join("plain");
        fs::write(&program, "not a program").unwrap();
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            for (program, kind) in [
                ("no-such-program", io::ErrorKind::NotFound),
                ("./no-such-program", io::ErrorKind::NotFound),
                ("./plain", io::ErrorKind::PermissionDenied),
                ("/", io::ErrorKind::PermissionDenied),
            ] {
                stage.own(sandbox);
                match sandbox.start(&stage.spec(&[program])).await {
                    Err(StartError::Exec { program: named, source }) => {
                        assert_eq!((named.as_str(), source.kind()), (program, kind), "{}", sandbox.name());
                    }
                    other => panic!("{program}: {:?}", other.map(|process| process.tree.root())),
                }
            }
        }
        let spawner = stage.pids.lock().unwrap()[0];
        let children =
            || fs::read_to_string(format!("/proc/{spawner}/task/{spawner}/children")).unwrap_or_default();
        until("nothing is left to reap", || children().trim().is_empty()).await;
    }
}

#[tokio::test]
async fn what_the_kernel_cannot_take_is_named() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        let spec = || stage.spec(&["true"]);
        for (spec, what) in [
            (stage.spec(&[]), "no program"),
            (stage.spec(&["a\0b"]), "NUL"),
            (Spec { env: vec![("A=B".into(), "c".into())], ..spec() }, "\"A=B\""),
            (Spec { env: vec![("A".into(), "\0".into())], ..spec() }, "\"A\""),
            (Spec { read_only: vec!["/etc".into()], ..spec() }, "/etc"),
            (Spec { workspace: "relative".into(), ..spec() }, "relative"),
            (Spec { workspace: stage.path("missing"), ..spec() }, "missing"),
            (Spec { read_only: vec![stage.path("absent")], ..spec() }, "absent"),
        ] {
            match native.start(&spec).await {
                Err(StartError::Io(error)) => assert!(error.to_string().contains(what), "{error}"),
                other => panic!("{what}: {:?}", other.map(|process| process.tree.root())),
            }
        }
    }
}

#[tokio::test]
async fn root_of_the_host_is_never_an_agent() {
    if servers().len() < 2 {
        return;
    }
    let stage = Stage::new(Server::Me);
    let refused = stage.native().start(&Spec { uid: 0, ..stage.spec(&["true"]) }).await;
    assert!(matches!(refused, Err(StartError::Io(_))));
}

#[tokio::test]
async fn a_kill_leaves_nobody() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let marker = format!("kill-{}-{server:?}-{}", std::process::id(), sandbox.name());
            let process = start_stubborn(&stage, sandbox, &marker).await;
            process.tree.terminate();
            process.tree.kill().await;
            assert_eq!(marked(&marker), 0, "when the kill has answered: {server:?} {}", sandbox.name());
            process.tree.kill().await;
            process.tree.interrupt();
            process.tree.exited().await;
        }
    }
}

#[tokio::test]
async fn the_agents_end_is_the_end_of_its_daemons() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let marker = format!("main-{}-{server:?}-{}", std::process::id(), sandbox.name());
            let script = format!(
                "setsid sh -c 'trap \"\" TERM HUP; echo up; while :; do sleep 1; done' {marker} & read line"
            );
            let process = stage.start(sandbox, &["sh", "-c", &script, &marker]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            drop(process.stdin);
            assert_eq!(process.tree.exited().await, Exit::Code(1));
            until("its daemon is gone", || marked(&marker) == 0).await;
        }
    }
}

#[tokio::test]
async fn letting_go_kills() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let marker = format!("drop-{}-{server:?}-{}", std::process::id(), sandbox.name());
            drop(start_stubborn(&stage, sandbox, &marker).await);
            until("all are gone", || marked(&marker) == 0).await;
        }
    }
}

#[tokio::test]
async fn a_start_that_is_let_go_leaves_nobody() {
    let stage = Stage::new(Server::Me);
    for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
        let marker = format!("half-{}-{}", std::process::id(), sandbox.name());
        stage.own(sandbox);
        let spec = Spec { argv: stubborn(&marker), ..stage.spec(&[]) };
        for patience in [0, 100, 500, 1000, 2000, 4000] {
            let _ = tokio::time::timeout(Duration::from_micros(patience), sandbox.start(&spec)).await;
        }
        // The spawner works in order: when this one has ended, all before it had begun.
        stage.run(sandbox, "true").await;
        until("all are gone", || marked(&marker) == 0).await;
    }
}

/// Not a test: a server that will be killed. Its folders are in the working folder.
#[tokio::test]
#[ignore = "the server process of another test"]
async fn server_process() {
    let stage = Stage::new(Server::Me);
    let marker = fs::read_to_string("marker").unwrap();
    let mut processes = Vec::new();
    for sandbox in stage.drivers() {
        processes.push(start_stubborn(&stage, sandbox.as_ref(), &marker).await);
    }
    fs::write("up", "").unwrap();
    for process in processes {
        process.tree.exited().await;
    }
}

/// A process that doesn't outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "stands in for a server that dies")]
async fn the_servers_death_is_the_end_of_all_trees() {
    for &server in servers() {
        let folder = tempfile::tempdir().unwrap();
        let marker = format!("death-{}-{server:?}", std::process::id());
        fs::write(folder.path().join("marker"), &marker).unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "sandbox::story::server_process"]);
        // It won't tidy up after itself, so all that it makes is made in here.
        command.current_dir(folder.path()).env("TMPDIR", folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if server == Server::Nobody {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = Killed(command.spawn().unwrap());
        until("the server's agents are up", || folder.path().join("up").exists()).await;
        let spawners = format!("spawner-of-{}-", child.0.id());
        assert!(marked(&marker) >= 3 && marked(&spawners) >= 1);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        until("its spawner is gone", || marked(&spawners) == 0).await;
        assert_eq!(marked(&marker), 0, "the spawner goes last");
    }
}

#[tokio::test]
async fn a_dead_spawner_is_replaced() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        let marker = format!("spawner-{}-{server:?}", std::process::id());
        let process = start_stubborn(&stage, &native, &marker).await;
        let spawner =
            rustix::process::Pid::from_raw(i32::try_from(stage.pids.lock().unwrap()[0]).unwrap()).unwrap();
        rustix::process::kill_process(spawner, rustix::process::Signal::KILL).unwrap();
        // Its children's death signal.
        assert_eq!(process.tree.exited().await, Exit::Signal(9));
        process.tree.kill().await;
        assert_eq!(marked(&marker), 0);
        assert_eq!(stage.run(&native, "echo again").await, ("again\n".to_owned(), Exit::Code(0)));
        assert_eq!(stage.pids.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn an_agent_that_kills_its_subreaper_dies_too() {
    for &server in servers() {
        let stage = Stage::new(server);
        let none = stage.none();
        let marker = format!("reaper-{}-{server:?}", std::process::id());
        let process = start_stubborn(&stage, &none, &marker).await;
        let root = rustix::process::Pid::from_raw(process.tree.root()).unwrap();
        rustix::process::kill_process(root, rustix::process::Signal::KILL).unwrap();
        assert_eq!(process.tree.exited().await, Exit::Signal(9));
        until("all are gone", || marked(&marker) == 0).await;
    }
}

#[tokio::test]
async fn signals_reach_the_agent() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let script =
                "trap 'echo int' INT; trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.01; done";
            let process = stage.start(sandbox, &["sh", "-c", script]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            process.tree.interrupt();
            assert_eq!(read_line(&process.stdout).await, "int");
            process.tree.terminate();
            assert_eq!(read_line(&process.stdout).await, "term");
            assert_eq!(process.tree.exited().await, Exit::Code(3), "{server:?} {}", sandbox.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_at_the_last_moment_hides_no_exit() {
    let stage = Stage::new(Server::Me);
    for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
        for _ in 0..10 {
            let process =
                stage.start(sandbox, &["sh", "-c", "trap '' INT; echo up; read line; exit 7"]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            drop(process.stdin);
            let ended = std::sync::atomic::AtomicBool::new(false);
            let exit = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        process.tree.interrupt();
                    }
                });
                let exit = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(process.tree.exited())
                });
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
                exit
            });
            assert_eq!(exit, Exit::Code(7), "{}", sandbox.name());
        }
    }
}

#[tokio::test]
async fn a_machine_that_refuses_is_told_from_one_that_fails() {
    for &server in isolating() {
        for (machine, step, remedy) in [
            ("no-namespaces", "user namespace", "user.max_user_namespaces"),
            ("masked-proc", "mount /proc", "systempaths=unconfined"),
        ] {
            let stage = Stage::on(server, machine);
            match stage.native().start(&stage.spec(&["true"])).await {
                Err(StartError::Refused(refusal)) => {
                    assert_eq!(refusal.step, step, "{server:?} {refusal:?}");
                    assert!(refusal.remedy.contains(remedy), "{refusal:?}");
                }
                other => panic!("{machine}: {:?}", other.map(|process| process.tree.root())),
            }
            // What is asked for by name still works, and the best is never replaced by it in silence.
            assert_eq!(stage.run(&stage.none(), "echo on").await.0, "on\n");
            if server == Server::Nobody {
                continue;
            }
            let opened = |only_full| {
                let wish = Wish { choice: Choice::Auto, only_full };
                open(wish, stage.spawner.clone(), stage.folder.path(), SESSION)
            };
            assert!(opened(true).await.err().unwrap().remedy.contains("--sandbox none"));
            if landlock::check().is_ok() {
                let reduced = opened(false).await.unwrap();
                assert_eq!(reduced.sandbox.isolation(), Isolation::Reduced);
                assert_eq!(reduced.weaker.unwrap().step, step);
            }
        }
    }
}

#[tokio::test]
async fn init_reaps_what_others_leave() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in stage.drivers().iter().map(AsRef::as_ref) {
            let process =
                stage.start(sandbox, &["sh", "-c", "(true &) ; (true &) ; echo up; exec cat"]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            let root = process.tree.root();
            let children = || fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap();
            until("the agent is the only child", || children().split_whitespace().count() == 1).await;
            assert!(process.tree.root_is_init());
        }
    }
}

#[tokio::test]
async fn an_agent_gets_its_environment_and_nothing_of_the_servers() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        for sandbox in [&native as &dyn Sandbox, &stage.none()] {
            let large = "x".repeat(100_000);
            let spec = Spec {
                env: vec![
                    ("A".into(), "b c\n".into()),
                    ("LARGE".into(), large.clone()),
                    ("PATH".into(), "/bin".into()),
                ],
                ..stage.spec(&["env"])
            };
            stage.own(sandbox);
            let (text, _) = finish(sandbox.start(&spec).await.unwrap()).await;
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            assert_eq!(lines, ["", "A=b c", &format!("LARGE={large}"), "PATH=/bin"], "{}", sandbox.name());
        }
    }
}

#[tokio::test]
async fn none_runs_in_the_hosts_folders() {
    let stage = Stage::new(Server::Me);
    let none = stage.none();
    let spec = stage.spec(&["true"]);
    let inside = none.inside(&spec);
    assert_eq!(
        (inside.workspace, inside.home, inside.runtime),
        (spec.workspace.clone(), spec.home, spec.runtime)
    );
    let (text, _) = stage.run(&none, "pwd -P").await;
    assert_eq!(text.trim_end(), fs::canonicalize(spec.workspace).unwrap().display().to_string());
    assert_eq!(none.isolation(), Isolation::None);
    assert_eq!(stage.native().isolation(), Isolation::Full);
}

#[tokio::test]
async fn owning_follows_no_link() {
    if servers().len() < 2 {
        return;
    }
    let stage = Stage::new(Server::Me);
    let outside = stage.path("outside");
    fs::create_dir(&outside).unwrap();
    let workspace = stage.path("workspace");
    fs::create_dir_all(workspace.join("a/b")).unwrap();
    std::os::unix::fs::symlink(&outside, workspace.join("a/link")).unwrap();
    stage.native().own(SESSION, &workspace).unwrap();
    let uid =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(path).unwrap());
    assert_eq!(["", "a", "a/b", "a/link"].map(|name| uid(&workspace.join(name))), [SESSION; 4]);
    assert_eq!(uid(&outside), 0);
}

#[tokio::test]
async fn many_start_at_once() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = Arc::new(stage.native());
        stage.own(native.as_ref());
        let starts: Vec<_> = (0..40)
            .map(|number| {
                let (native, spec) = (native.clone(), stage.spec(&["echo", &number.to_string()]));
                tokio::spawn(async move { finish(native.start(&spec).await.unwrap()).await })
            })
            .collect();
        for (number, start) in starts.into_iter().enumerate() {
            assert_eq!(start.await.unwrap(), (format!("{number}\n"), Exit::Code(0)));
        }
        assert_eq!(stage.pids.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn opening_tries_the_whole_profile() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let scratch = stage.path("scratch");
        let _ = fs::create_dir(&scratch);
        for (choice, name) in [(Choice::Auto, "native"), (Choice::Native, "native"), (Choice::None, "none")] {
            // The probe's folders are made by the server, which here is root even where the spawner isn't.
            if server == Server::Me {
                let wish = Wish { choice, only_full: false };
                let opened = open(wish, stage.spawner.clone(), &scratch, SESSION).await.unwrap();
                assert_eq!((opened.sandbox.name(), opened.weaker), (name, None));
                // Nothing of the probe but the note that it need not be done again.
                assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
                assert!(fs::read_to_string(scratch.join("sandbox.probed")).unwrap().starts_with("native "));
            }
        }
    }
}

#[tokio::test]
async fn what_has_worked_is_not_probed_again_until_it_is_refused() {
    let stage = Stage::on(Server::Me, "no-namespaces");
    let working = Stage::new(Server::Me);
    if !isolating().contains(&Server::Me) {
        return;
    }
    let scratch = working.folder.path();
    let wish = Wish { choice: Choice::Native, only_full: false };
    open(wish, working.spawner.clone(), scratch, SESSION).await.unwrap();
    // A machine that refuses is believed to allow it, for the note says so, until an agent is started.
    let opened = open(wish, stage.spawner.clone(), scratch, SESSION).await.unwrap();
    let refused = opened.sandbox.start(&stage.spec(&["true"])).await;
    assert!(matches!(refused, Err(StartError::Refused(_))));
    assert!(open(wish, stage.spawner.clone(), scratch, SESSION).await.is_err());
}
