//! `sessions files`, `sessions export` and `end --keep`: what goes in and out of a workspace that somebody hostile may own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::request::request;
use crate::test::{Test, short};

/// A session of an obedient shell that has run already.
fn begun() -> (Test, String) {
    let test = Test::new();
    test.deploy("shell");
    let id = test.create("shell");
    test.send(&id, "rm superserve.yaml agent.sh; echo ready");
    (test, id)
}

/// Where the host has a session's workspace.
fn workspace(test: &Test, id: &str) -> PathBuf {
    test.home().join("sessions").join(id).join("workspace")
}

/// What `tar` says is in an archive: names and, of files, contents.
fn unpacked(path: &std::path::Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).unwrap()));
    let mut entries = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        entries.push((name, content));
    }
    entries
}

#[test]
fn lists_what_the_agent_has_made() {
    let (test, id) = begun();
    test.send(&id, "mkdir -p notes/deep; printf milk > notes/a.txt; printf x > notes/deep/b; ln -s notes/a.txt link; touch -d @1773051300 notes link notes/a.txt notes/deep notes/deep/b -h");
    let at = "2026-03-09T10:15:00Z";
    let listed = |args: &[&str]| {
        let words: Vec<&str> = ["sessions", "files", &id].into_iter().chain(args.iter().copied()).collect();
        test.args(&words).any_stdout().run().stdout
    };
    let expected =
        format!("size  modified              name\n      {at}  link -> notes/a.txt\n      {at}  notes/\n");
    assert_eq!(listed(&[]), expected);
    assert_eq!(listed(&["ls"]), expected);
    assert_eq!(listed(&["ls", "/workspace"]), expected);
    let below =
        format!("size  modified              name\n4     {at}  notes/a.txt\n      {at}  notes/deep/\n");
    assert_eq!(listed(&["ls", "notes"]), below);
    assert_eq!(listed(&["ls", "/workspace/notes/"]), below);
    assert_eq!(listed(&["ls", "notes/a.txt"]).lines().count(), 2, "a file is itself");
    let all = test.json(["sessions", "files", &id, "ls", "-r", "--json"]);
    let paths: Vec<&str> =
        all.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["link", "notes", "notes/a.txt", "notes/deep", "notes/deep/b"]);
    assert_eq!(
        all[2],
        json!({ "executable": false, "kind": "file", "modified_at": at, "path": "notes/a.txt", "size": 4, "target": null })
    );
    test.args(["sessions", "files", &id, "ls", "--recursive", "notes/deep"])
        .stdout_part("notes/deep/b")
        .run();
    test.args(["sessions", "files", &id, "ls", "none"])
        .stderr("✗ There is no 'none' in the workspace\n  superserve sessions files ID ls -r shows what is there.\n")
        .status(3)
        .run();
    test.args(["sessions", "files", &id, "ls", "../.."]).stderr_part("'..'").status(2).run();
    test.args(["sessions", "files", &id, "ls", "/etc"]).stderr_part("outside of /workspace").status(2).run();
    test.args(["sessions", "files", &id, "ls", "link"]).any_stdout().run();
    test.args(["sessions", "files", &id, "ls", "link/x"])
        .stderr_part("Links are not followed")
        .status(2)
        .run();
    test.args(["sessions", "files", &id, "rm"]).stderr_part("Use ls, get or put").status(2).run();
    test.args(["sessions", "files", &id, "get", "-r", "x"])
        .stderr_part("--recursive is for ls")
        .status(2)
        .run();
}

#[test]
fn names_can_not_command_a_terminal() {
    let (test, id) = begun();
    test.send(&id, r#"printf x > "$(printf 'a\033[31mred\nline\001')""#);
    let output = test.args(["sessions", "files", &id]).any_stdout().run().stdout;
    assert_eq!(output.lines().count(), 2, "{output:?}");
    assert!(output.ends_with("ared line\n"), "{output:?}");
    let json = test.json(["sessions", "files", &id, "--json"]);
    assert_eq!(json[0]["path"], "a\u{1b}[31mred\nline\u{1}");
}

#[test]
fn bytes_come_and_go_as_they_are() {
    let (test, id) = begun();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(test.work().join("data.bin"), &bytes).unwrap();
    fs::set_permissions(test.work().join("data.bin"), fs::Permissions::from_mode(0o755)).unwrap();
    test.args(["sessions", "files", &id, "put", "data.bin", "in/deep/data.bin"])
        .stderr(format!("✓ data.bin put into {} as in/deep/data.bin\n", short(&id)))
        .run();
    assert_eq!(test.send(&id, "wc -c < in/deep/data.bin; test -x in/deep/data.bin && test -O in/deep && test -O in/deep/data.bin && echo mine; echo more >> in/deep/data.bin"), "300000\nmine\n");
    test.args(["sessions", "files", &id, "get", "in/deep/data.bin", "back"])
        .stderr("✓ in/deep/data.bin written to back\n")
        .run();
    assert_eq!(fs::read(test.work().join("back")).unwrap(), [&bytes[..], b"more\n"].concat());
    assert_eq!(fs::metadata(test.work().join("back")).unwrap().mode() & 0o111, 0o111);
    fs::create_dir(test.work().join("folder")).unwrap();
    test.args(["sessions", "files", &id, "get", "in/deep/data.bin", "folder"]).any_stderr().run();
    assert!(test.work().join("folder/data.bin").exists());
    // Outside of the working folder too: it was typed.
    let elsewhere = test.home().parent().unwrap().join("elsewhere");
    test.args(["sessions", "files", &id, "get", "in/deep/data.bin", elsewhere.to_str().unwrap()])
        .any_stderr()
        .run();
    assert_eq!(fs::metadata(&elsewhere).unwrap().len(), 300_005);
    test.write("note.txt", "grüße\n");
    test.args(["sessions", "files", &id, "put", "note.txt"]).any_stderr().run();
    test.args(["sessions", "files", &id, "get", "note.txt", "-"]).stdout("grüße\n").run();
    test.write("note.txt", "anew\n");
    test.args(["sessions", "files", &id, "put", "note.txt", "in/"]).any_stderr().run();
    assert_eq!(test.send(&id, "cat note.txt in/note.txt; ls -A | wc -l"), "grüße\nanew\n2\n");
    test.args(["sessions", "files", &id, "put", "missing"])
        .stderr_part("cannot read missing")
        .status(3)
        .run();
    test.args(["sessions", "files", &id, "put", "note.txt", "in"])
        .stderr_part("is a folder, not a file")
        .status(2)
        .run();
    test.args(["sessions", "files", &id, "get", "in"]).stderr_part("is a folder, not a file").status(2).run();
    test.args(["sessions", "files", &id, "get", "nothing", "note.txt"])
        .stderr_part("There is no 'nothing'")
        .status(3)
        .run();
    assert_eq!(fs::read_to_string(test.work().join("note.txt")).unwrap(), "anew\n", "left as it was");
    test.args(["sessions", "files", &id, "get"]).stderr_part("get needs a path").status(2).run();
    for (command, told) in [
        (vec!["put", "note.txt", "x"], format!("would put note.txt into {} as x\n", short(&id))),
        (vec!["get", "note.txt", "x"], format!("would write note.txt of {} to x\n", short(&id))),
    ] {
        let words: Vec<&str> =
            ["sessions", "files", &id].into_iter().chain(command).chain(["--dry-run"]).collect();
        test.args(&words).stdout(told).run();
    }
    assert!(!test.work().join("x").exists());
    assert_eq!(test.send(&id, "ls x"), "ls: cannot access 'x': No such file or directory\nfailed: 2\n");
}

#[test]
fn a_session_in_which_nothing_has_run_gets_its_workspace_by_a_put() {
    let test = Test::new();
    test.deploy("shell");
    let id = test.create("shell");
    test.args(["sessions", "files", &id]).run();
    test.args(["sessions", "files", &id, "--json"]).stdout("[]\n").run();
    test.args(["sessions", "files", &id, "get", "agent.sh"]).any_stderr().status(3).run();
    test.write("input.txt", "given\n");
    test.args(["sessions", "files", &id, "put", "input.txt"]).any_stderr().run();
    assert_eq!(test.status_of(&id), "pending");
    assert_eq!(test.send(&id, "cat input.txt; ls"), "given\nagent.sh\ninput.txt\nsuperserve.yaml\n");
}

#[test]
fn an_agent_at_work_is_no_obstacle_and_an_ended_session_is() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    test.write("a.txt", "while it works");
    test.args(["sessions", "files", &id, "put", "a.txt"]).any_stderr().run();
    test.args(["sessions", "files", &id, "get", "a.txt", "-"]).stdout("while it works").run();
    let told = "✗ Session is at work, so not all of it would be kept\n  Wait for it, or cancel its run, then try again.\n";
    test.args(["sessions", "end", &id, "--keep", "kept.tar.gz"]).stderr(told).status(5).run();
    assert_eq!(test.status_of(&id), "active");
    assert!(!test.work().join("kept.tar.gz").exists());
    test.args(["sessions", "end", &id]).any_stderr().run();
    run.finish();
    for words in [
        &["files", &id, "ls"][..],
        &["files", &id, "get", "a.txt"],
        &["files", &id, "put", "a.txt"],
        &["export", &id],
    ] {
        let words: Vec<&str> = ["sessions"].into_iter().chain(words.iter().copied()).collect();
        test.args(&words).stderr_part("✗ Session has ended, and its workspace is gone\n").status(5).run();
    }
}

#[test]
fn nothing_that_an_agent_puts_in_the_way_leads_out_or_holds_up() {
    let (test, id) = begun();
    let outside = test.home().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "host-secret").unwrap();
    // What the agent could make, made from outside, so that it leads to this very folder.
    let top = workspace(&test, &id);
    symlink(&outside, top.join("out")).unwrap();
    symlink(outside.join("secret"), top.join("file")).unwrap();
    test.send(&id, "mkfifo fifo; mkdir locked; printf mine > locked/file; chmod 000 locked/file locked; ln -s /etc/passwd passwd");
    test.write("evil.txt", "evil");
    for path in ["out/secret", "file", "fifo", "passwd", "out/new"] {
        test.args(["sessions", "files", &id, "get", path, "-"]).any_stderr().status(2).run();
        test.args(["sessions", "files", &id, "put", "evil.txt", path]).any_stderr().status(2).run();
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "host-secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    test.args(["sessions", "files", &id, "get", "locked/file", "-"]).stdout("mine").run();
    test.args(["sessions", "export", &id, "all.tar.gz"])
        .stderr(format!("✓ Session {} exported to all.tar.gz\nfifo: a pipe can't be kept\n", short(&id)))
        .run();
    let entries = unpacked(&test.work().join("all.tar.gz"));
    assert!(entries.iter().all(|(_, content)| !content.contains("host-secret")), "{entries:?}");
    assert!(entries.contains(&("workspace/locked/file".to_owned(), "mine".to_owned())), "{entries:?}");
}

#[test]
fn a_folder_that_is_swapped_for_a_link_gets_nothing_written_outside() {
    let (test, id) = begun();
    let outside = test.home().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    let top = workspace(&test, &id);
    fs::create_dir(top.join("real")).unwrap();
    symlink(&outside, top.join("link")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut written = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for other in ["real", "link"] {
                    let _ = fs::rename(top.join(other), top.join("swap"));
                    let _ = fs::rename(top.join("swap"), top.join(other));
                }
            }
        });
        for number in 0..200 {
            let path = format!("/sessions/{id}/files/swap/{number}");
            written += usize::from(request(&test, "PUT", &path, Some("text")).status == 200);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(written > 0, "without a success this shows nothing");
}

#[test]
fn errors_over_the_wire() {
    let (test, id) = begun();
    let of = |method: &str, path: &str| {
        let answer = request(&test, method, &format!("/sessions/{path}"), (method == "PUT").then_some("x"));
        (answer.status, answer.json()["details"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let code = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(of("GET", &format!("{id}/files/none")), code(404, "not_found"));
    assert_eq!(of("GET", &format!("{id}/files/%2e%2e/%2e%2e/x")), code(422, "invalid"));
    assert_eq!(of("GET", &format!("{id}/files/a%00b")), code(422, "invalid"));
    assert_eq!(
        of("GET", &format!("{id}/files")),
        code(422, "invalid"),
        "a folder, and nobody asked for a list"
    );
    assert_eq!(of("PUT", &format!("{id}/files/..")), code(422, "invalid"));
    assert_eq!(of("PUT", &format!("{id}/files/a/")), code(422, "invalid"));
    assert_eq!(of("PUT", &format!("{id}/files/{}", "x".repeat(256))), code(422, "invalid"));
    assert_eq!(of("GET", "zzzz/files/a"), code(404, "not_found"));
    assert_eq!(of("GET", "%ff/export"), code(404, "not_found"));
    assert_eq!(of("POST", &format!("{id}/files/a")).0, 405);
    // A name that is no text has its bytes in the URL.
    let answer = request(&test, "PUT", &format!("/sessions/{id}/files/caf%E9"), Some("au lait"));
    assert_eq!(answer.json()["encoded"], "caf%E9");
    assert_eq!(request(&test, "GET", &format!("/sessions/{id}/files/caf%E9"), None).body, "au lait");
    assert_eq!(test.send(&id, "printf 'caf\\351' | xargs cat"), "au lait\n");
    // What can't fit is refused before it is sent.
    let mut stream = UnixStream::connect(test.home().join("run/server.sock")).unwrap();
    let head =
        format!("PUT /v1/sessions/{id}/files/big HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // A body that breaks off leaves nothing.
    let mut stream = UnixStream::connect(test.home().join("run/server.sock")).unwrap();
    let head =
        format!("PUT /v1/sessions/{id}/files/half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    let listed = test.json(["sessions", "files", &id, "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn gigabytes_take_no_memory() {
    let (test, id) = begun();
    test.send(&id, "truncate -s 300M big; printf begin | dd of=big conv=notrunc 2>/dev/null; printf end >> big; md5sum < big > sum");
    let server = test.server();
    let peak = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = peak();
    test.args(["sessions", "files", &id, "get", "big", "big"]).any_stderr().run();
    test.args(["sessions", "files", &id, "put", "big", "again"]).any_stderr().run();
    assert_eq!(test.send(&id, "md5sum < again | cmp - sum && echo same"), "same\n");
    test.args(["sessions", "export", &id, "all.tar.gz"]).any_stderr().run();
    let grown = (peak() - before) >> 10;
    assert!(grown < 64, "{grown} MiB more");
}

#[test]
fn an_export_is_the_record_the_transcript_and_the_workspace() {
    let (test, id) = begun();
    test.send(&id, "mkdir notes; printf milk > notes/a.txt");
    let file = format!("{}.tar.gz", short(&id));
    test.args(["sessions", "export", &id])
        .stderr(format!("✓ Session {} exported to {file}\n", short(&id)))
        .run();
    let entries = unpacked(&test.work().join(&file));
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["session.json", "transcript.json", "workspace/notes/", "workspace/notes/a.txt", "export.json"]
    );
    let record: Value = serde_json::from_str(&entries[0].1).unwrap();
    assert_eq!((&record["id"], &record["message_count"]), (&json!(id), &json!(2)));
    let transcript: Value = serde_json::from_str(&entries[1].1).unwrap();
    assert_eq!(transcript[1]["content"], "ready");
    assert_eq!(entries[3].1, "milk");
    // What other programs make of it.
    let listed =
        test.shell(&format!("superserve sessions export {id} - | tar -tz")).any_stdout().run().stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    let kept = test.json(["sessions", "export", &id, "x.tar.gz", "--json"]);
    assert_eq!(
        (&kept["file"], &kept["entries"], &kept["notes"]),
        (&json!("x.tar.gz"), &json!(2), &json!([]))
    );
    test.args(["sessions", "export", &id, "y.tar.gz", "--dry-run"])
        .stdout(format!("would keep {} as y.tar.gz\n", short(&id)))
        .run();
    assert!(!test.work().join("y.tar.gz").exists());
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn end_keeps_first_and_ends_only_what_is_kept() {
    let (test, id) = begun();
    test.send(&id, "printf milk > a.txt");
    test.write("there.tar.gz", "precious");
    test.args(["sessions", "end", &id, "--keep", "there.tar.gz"])
        .stderr_part("cannot write there.tar.gz")
        .status(1)
        .run();
    assert_eq!(fs::read_to_string(test.work().join("there.tar.gz")).unwrap(), "precious");
    test.args(["sessions", "end", &id, "--keep", "nowhere/a.tar.gz"]).any_stderr().status(3).run();
    if std::path::Path::new("/dev/full").exists() {
        test.args(["sessions", "end", &id, "--keep", "/dev/full"])
            .stderr_part("it is a device")
            .status(1)
            .run();
    }
    // A disk on which not even the archive's beginning fits.
    test.shell(&format!("ulimit -f 0; trap '' XFSZ; superserve sessions end {id} --keep full.tar.gz"))
        .any_stderr()
        .any_status()
        .run();
    assert_eq!(test.status_of(&id), "idle", "nothing was kept, so nothing was ended");
    assert_eq!(fs::read_dir(test.work()).unwrap().count(), 1, "nothing half is left");
    test.args(["sessions", "end", &id, "--keep", "kept.tar.gz", "--dry-run"])
        .stdout(format!("would keep {0} as kept.tar.gz\nwould end {0}\n", short(&id)))
        .run();
    test.args(["sessions", "end", short(&id), "--keep", "kept.tar.gz"])
        .stderr(format!("✓ Session {} ended (status: ENDED)\n", short(&id)))
        .run();
    assert_eq!(test.status_of(&id), "ended");
    assert!(unpacked(&test.work().join("kept.tar.gz")).contains(&("workspace/a.txt".into(), "milk".into())));
    test.args(["sessions", "end", &id, "--keep", "again.tar.gz"])
        .stderr_part("its workspace is gone")
        .status(5)
        .run();
}

#[test]
fn several_are_kept_in_a_folder() {
    let test = Test::new();
    test.deploy("echo");
    let ids: Vec<String> = (0..3).map(|_| test.begin("echo", "hello")).collect();
    test.args(["sessions", "end", &ids[0], &ids[1], "--keep", "one.tar.gz"])
        .stderr_part("several sessions can't be kept in one file")
        .status(2)
        .run();
    fs::create_dir(test.work().join("kept")).unwrap();
    // One of them can't be kept: its place is taken.
    test.write(&format!("kept/{}.tar.gz", short(&ids[1])), "precious");
    let output = test
        .args(["sessions", "end", "--where", "true", "--yes", "--keep", "kept"])
        .any_stderr()
        .status(1)
        .run();
    assert!(output.stderr.contains(&format!("✗ Session {} was not ended", short(&ids[1]))), "{output:?}");
    for (id, status) in ids.iter().zip(["ended", "idle", "ended"]) {
        assert_eq!(test.status_of(id), status);
    }
    assert!(unpacked(&test.work().join(format!("kept/{}.tar.gz", short(&ids[2])))).len() > 3);
    let rows = test
        .args(["sessions", "end", &ids[1], "zzzz", "--keep", "kept", "--json"])
        .any_stdout()
        .any_stderr()
        .status(1)
        .run();
    let rows: Value = serde_json::from_str(&rows.stdout).unwrap();
    assert_eq!(
        (rows[0]["id"].as_str(), rows[0]["error"]["code"].as_str()),
        (Some("zzzz"), Some("not_found"))
    );
    assert_eq!(
        (rows[1]["id"].as_str(), rows[1]["error"]["code"].as_str()),
        (Some(ids[1].as_str()), Some("io"))
    );
}

#[test]
fn scripts_do_the_same_where_they_may() {
    let (test, id) = begun();
    let path = test.write(
        "mine.rhai",
        "let s = get(\"@last\");\ns.write(\"a/b.txt\", \"text\");\nprint(s.read(\"a/b.txt\"));\nprint(s.files(\"a\").len);\n\
         try { s.read(\"../x\"); } catch (e) { print(e.code); }\ns.archive(\"../out.tar.gz\");\n",
    );
    let output = test.args(["script", path.to_str().unwrap()]).any_stdout().any_stderr().status(2).run();
    assert_eq!(output.stdout, "text\n1\ninvalid\n");
    assert!(output.stderr.contains("--allow-path"), "{}", output.stderr);
    let above = test.work().parent().unwrap().to_str().unwrap().to_owned();
    test.args(["script", path.to_str().unwrap(), "--allow-path", &above]).any_stdout().run();
    assert!(test.work().join("../out.tar.gz").exists());
    test.send(&id, "printf '\\377' > binary");
    test.args(["eval", "get(\"@last\").read(\"binary\")"]).stderr_part("not UTF-8").status(1).run();
}

#[test]
fn an_end_in_the_middle_of_an_export_leaves_no_archive() {
    let (test, id) = begun();
    test.send(&id, "dd if=/dev/urandom of=noise bs=1M count=30 2>/dev/null");
    let mut stream = UnixStream::connect(test.home().join("run/server.sock")).unwrap();
    stream.write_all(format!("GET /v1/sessions/{id}/export HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut head = [0; 1000];
    stream.read_exact(&mut head).unwrap();
    test.args(["sessions", "end", &id]).any_stderr().run();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole");
    wait_until("the log to say so", || {
        fs::read_to_string(test.home().join("server.log"))
            .unwrap_or_default()
            .contains("an export was broken off")
    });
}
