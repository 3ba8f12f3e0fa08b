//! What an isolated agent sees, and what it must not be able to do.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};

use super::stage::*;
use super::*;

#[tokio::test]
async fn workspace_and_home_last_and_nothing_else() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        let (text, exit) = stage.run(&native, "pwd; echo a > note; echo c > /tmp/note").await;
        assert_eq!((text.as_str(), exit), ("/workspace\n", Exit::Code(0)));
        let set = "HOME=/home/agent; ";
        let (text, _) =
            stage.run(&native, &format!("{set} echo b > ~/note; cat note; ls -A /tmp | wc -l")).await;
        assert_eq!(text, "a\n0\n");
        let (text, _) = stage.run(&native, &format!("{set} cat note ~/note")).await;
        assert_eq!(text, "a\nb\n");
        assert_eq!(fs::read_to_string(stage.path("workspace/note")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(stage.path("home/note")).unwrap(), "b\n");
    }
}

#[tokio::test]
async fn the_runtime_folder_can_only_be_read_but_its_fifo_written() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let runtime = stage.path("runtime");
        fs::write(runtime.join("history.jsonl"), "past\n").unwrap();
        let fifo = runtime.join("turn");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        rustix::fs::chmod(&fifo, mode).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let ours = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).unwrap();
        let native = stage.native();
        let script = "cd /run/superserve; cat history.jsonl; echo done > turn; \
            for name in history.jsonl new; do (echo x > $name) 2>/dev/null || echo denied; done; rm turn 2>/dev/null";
        let (text, exit) = stage.run(&native, script).await;
        assert_eq!((text.as_str(), exit), ("past\ndenied\ndenied\n", Exit::Code(1)), "{server:?}");
        assert_eq!(read_line(&ours).await, "done");
    }
}

#[tokio::test]
async fn a_shown_folder_can_only_be_read() {
    for &server in isolating() {
        let stage = Stage::new(server);
        // Below folders that a session's uid can't pass.
        let shown = stage.path("deep/shown");
        fs::create_dir_all(&shown).unwrap();
        fs::write(shown.join("file"), "seen\n").unwrap();
        if server == Server::Nobody {
            chown(stage.path("deep"), Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&shown, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(stage.path("deep"), fs::Permissions::from_mode(0o700)).unwrap();
        let native = stage.native();
        let script = format!("cat {0}/file; touch {0}/new 2>/dev/null || echo denied", shown.display());
        let spec =
            Spec { read_only: vec![shown.clone(), "/usr/bin".into()], ..stage.spec(&["sh", "-c", &script]) };
        stage.own(&native);
        assert_eq!(finish(native.start(&spec).await.unwrap()).await.0, "seen\ndenied\n", "{server:?}");
        let hidden = native.start(&Spec { read_only: Vec::new(), ..spec }).await.unwrap();
        assert!(!finish(hidden).await.0.contains("seen"));
    }
}

#[tokio::test]
async fn the_keys_of_the_user_who_started_the_server_are_out_of_reach() {
    for &server in isolating() {
        let stage = Stage::on(server, "key");
        let probe = "test -e /proc/keys && echo keys; grep -q superserve-test-key /proc/keys && echo seen";
        let (text, _) = stage.run(&stage.none(), probe).await;
        if !text.starts_with("keys\n") {
            // Not by a macro, whose output is kept back when a test passes.
            writeln!(io::stderr(), "skipped: kernel keys: this kernel has none").unwrap();
            return;
        }
        assert_eq!(text, "keys\nseen\n", "{server:?} none");
        for _ in 0..2 {
            assert_eq!(stage.run(&stage.native(), probe).await.0, "keys\n", "{server:?} native");
        }
    }
}

/// What an isolated agent must not be able to do. Each first succeeds with the `none` driver: a broken probe must
/// not pass for a wall.
#[tokio::test]
async fn walls() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let none = stage.none();
        stage.run(&none, "true").await;
        let spawner = stage.pids.lock().unwrap()[0];
        let secret = stage.path("secret");
        fs::write(&secret, "secret\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        if server == Server::Nobody {
            chown(&secret, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let secret = secret.display().to_string();
        let me = std::process::id();
        let mut probes = vec![
            ("read a file in the host's /tmp", format!("cat {secret}")),
            ("write a file in the host's /tmp", format!("echo x >> {secret}")),
            ("see the host's other files", "test -e /proc/1/cmdline && test -e /sys/kernel".to_owned()),
            ("see the host's processes", format!("test -e /proc/{me}")),
            ("signal a process of the same user", format!("kill -0 {spawner}")),
            ("learn the host's name", format!("test $(uname -n) = {}", host_name())),
        ];
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            probes.push((
                "share a namespace",
                format!("test $(readlink /proc/self/ns/{name}) = '{}'", host.display()),
            ));
        }
        if server == Server::Me && servers().len() == 2 {
            probes.push(("write to /usr", "test -w /usr && test -w /etc".to_owned()));
            probes.push(("read the host's passwords", "cat /etc/shadow".to_owned()));
            probes.push((
                "have capabilities",
                "! grep -q 'CapEff:.*0000000000000000' /proc/self/status".to_owned(),
            ));
            probes.push(("own the host's files", "test $(stat -c %u /usr) = $(id -u)".to_owned()));
        }
        if server == Server::Nobody || servers().len() == 1 {
            // An ordinary user's agent has the user's uid: its own files outside are what it must not reach.
            probes.push(("be its user outside", format!("test -O {}", stage.folder.path().display())));
        }
        for (what, script) in probes {
            let (text, exit) = stage.run(&none, &script).await;
            assert_eq!(exit, Exit::Code(0), "{server:?} none: {what}: {script}: {text}");
            for sandbox in stage.full().iter().map(AsRef::as_ref) {
                let (text, exit) = stage.run(sandbox, &script).await;
                let name = sandbox.name();
                assert!(matches!(exit, Exit::Code(1..)), "{server:?} {name}: {what}: {script}: {text}");
            }
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[tokio::test]
async fn an_isolated_agent_has_only_its_own() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        for (script, says) in [
            ("id -u; id -g; id -un", "1000\n1000\nagent\n"),
            ("uname -n; cat /etc/hostname", "story\nstory\n"),
            ("grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status | grep -vc ':.0*$'", "0\n"),
            ("grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
            (
                "env | grep -vE '^(PWD|OLDPWD|SHLVL|_)='",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
            ),
            ("ls /", "bin\ndev\netc\nhome\nlib\nlib64\nproc\nrun\nsbin\ntmp\nusr\nvar\nworkspace\n"),
            // Counted by the shell itself: the parts of a pipeline start in any order.
            ("set -- /proc/[0-9]*; echo $#", "2\n"),
            ("ls -A /home /run /run/superserve", "/home:\nagent\n\n/run:\nsuperserve\n\n/run/superserve:\n"),
            (
                "for d in / /usr /bin /etc /dev /run/superserve; do touch $d/x 2>&1 | grep -c 'Read-only'; done",
                "1\n1\n1\n1\n1\n1\n",
            ),
            ("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\n"),
            (
                "echo x > /dev/null && head -c 3 /dev/zero | wc -c; ls /dev",
                "3\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
            ),
            ("ls -l /proc/self/fd | grep -vc /proc", "4\n"),
            ("ulimit -n; ulimit -Hn; ulimit -c", "1024\n4096\n0\n"),
            (
                "stat -c %a /tmp /dev/shm; echo x > /tmp/x && echo x > /dev/shm/x && cat /tmp/x",
                "1777\n1777\nx\n",
            ),
            ("mount -t tmpfs x /tmp 2>/dev/null || echo refused", "refused\n"),
            ("umask; ps -o pgid= -p $$ | tr -d ' '", "0022\n2\n"),
            ("cat /proc/1/environ 2>/dev/null | wc -c; ls /proc/1/fd 2>/dev/null | wc -l", "0\n0\n"),
            (
                "unshare -Urm sh -c 'mount -o remount,rw,bind /run/superserve || umount /run/superserve' 2>/dev/null || echo refused",
                "refused\n",
            ),
            (
                "unshare -Urm sh -c 'mount -o remount,rw,bind / && touch /x' 2>/dev/null || echo refused",
                "refused\n",
            ),
            ("sleep 0.01 | cat; kill -9 1; echo alive", "alive\n"),
        ] {
            for sandbox in stage.full().iter().map(AsRef::as_ref) {
                let (text, _) = stage.run(sandbox, script).await;
                // Bubblewrap's /dev has one more link, and its init is this binary, which can be seen.
                let says = match sandbox.name() {
                    "bwrap" => says
                        .replace("3\nfd\n", "3\ncore\nfd\n")
                        .replace("superserve\n\n", "superserve\nsuperserve-init\n\n"),
                    _ => says.to_owned(),
                };
                assert_eq!(text, says, "{server:?} {}: {script}", sandbox.name());
            }
        }
        let host = match server {
            Server::Me if servers().len() == 2 => SESSION,
            Server::Me => rustix::process::geteuid().as_raw(),
            Server::Nobody => NOBODY,
        };
        let (text, _) = stage.run(&native, "cat /proc/self/uid_map /proc/self/gid_map").await;
        let maps: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(maps[0], ["1000", &host.to_string(), "1"], "{server:?}");
        if server == Server::Nobody || servers().len() == 2 {
            assert_eq!(maps[1], ["1000", &host.to_string(), "1"], "{server:?}");
        }
        stage.run(&native, "touch made").await;
        let made = fs::metadata(stage.path("workspace/made")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), host);
    }
}

#[tokio::test]
async fn the_hosts_network_only_when_asked_for() {
    for &server in isolating() {
        let stage = Stage::new(server);
        let native = stage.native();
        let host = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        let script = "readlink /proc/self/ns/net; cat /etc/resolv.conf";
        stage.own(&native);
        for (network, shared) in [(Network::Host, true), (Network::None, false)] {
            let spec = Spec { network: network.clone(), ..stage.spec(&["sh", "-c", script]) };
            let (text, _) = finish(native.start(&spec).await.unwrap()).await;
            assert_eq!(text.starts_with(&host), shared, "{server:?} {network:?}: {text}");
            let resolver = text.lines().skip(1).collect::<Vec<_>>().join("\n");
            match shared {
                true => assert_eq!(
                    resolver,
                    fs::read_to_string("/etc/resolv.conf").unwrap_or_default().trim_end()
                ),
                false => assert_eq!(resolver, ""),
            }
        }
    }
}

/// What the rules of Landlock keep from an agent. Each first succeeds with the `none` driver.
#[tokio::test]
async fn reduced_walls() {
    if landlock::check().is_err() {
        writeln!(io::stderr(), "skipped: this kernel has no Landlock").unwrap();
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = udp.local_addr().unwrap().port();
    for &server in servers() {
        let stage = Stage::new(server);
        let (reduced, none) = (stage.landlock(), stage.none());
        stage.run(&none, "true").await;
        let spawner = stage.pids.lock().unwrap()[0];
        let secret = stage.path("secret");
        fs::write(&secret, "secret\n").unwrap();
        let socket = stage.path("socket");
        let _pathname = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        if server == Server::Nobody {
            chown(&secret, Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&socket, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let (secret, socket) = (secret.display(), socket.display());
        let folder = stage.folder.path().display();
        let connect = |family: &str, kind: &str, address: String| {
            format!(
                "/usr/bin/python3 -c 'import socket; socket.socket(socket.{family}, socket.{kind}).connect({address})'"
            )
        };
        let mut probes = vec![
            ("read a file of its user's", format!("cat {secret}")),
            ("write a file of its user's", format!("echo x >> {secret}")),
            ("make a file beside its folders", format!("touch {folder}/made && rm {folder}/made")),
            ("list a folder", format!("ls {folder}")),
            ("read an environment", format!("cat /proc/{spawner}/environ")),
            ("signal a process", format!("kill -0 {spawner}")),
            ("link a file into its own folder", format!("ln {secret} stolen && cat stolen")),
            ("move a file in", format!("cp {secret} {folder}/copy && mv {folder}/copy moved")),
        ];
        if fs::metadata("/usr/bin/python3").is_ok() {
            probes.push((
                "reach a port",
                connect("AF_INET", "SOCK_STREAM", format!("(\"127.0.0.1\", {port})")),
            ));
            probes.push((
                "send a datagram",
                connect("AF_INET", "SOCK_DGRAM", format!("(\"127.0.0.1\", {udp_port})")),
            ));
            probes.push((
                "reach a socket in a folder",
                connect("AF_UNIX", "SOCK_STREAM", format!("\"{socket}\"")),
            ));
        }
        if server == Server::Me && servers().len() == 2 {
            probes.push(("write to /usr", "touch /usr/made && rm /usr/made".to_owned()));
            probes.push(("read the host's passwords", "cat /etc/shadow".to_owned()));
            probes.push((
                "have capabilities",
                "! grep -q 'CapEff:.*0000000000000000' /proc/self/status".to_owned(),
            ));
        }
        for (what, script) in probes {
            let (text, exit) = stage.run(&none, &script).await;
            assert_eq!(exit, Exit::Code(0), "{server:?} none: {what}: {script}: {text}");
            let (text, exit) = stage.run(&reduced, &script).await;
            assert!(matches!(exit, Exit::Code(1..)), "{server:?} landlock: {what}: {script}: {text}");
        }
        let whole = "echo a > note; mkdir -p d; echo b > d/x; mv d/x y; cat note y; echo t > $TMPDIR/t; ls /usr > /dev/null && \
            head -c 1 /dev/urandom | wc -c";
        assert_eq!(stage.run(&reduced, whole).await, ("a\nb\n1\n".to_owned(), Exit::Code(0)), "{server:?}");
        let spec = Spec {
            network: Network::Host,
            ..stage.spec(&[
                "sh",
                "-c",
                &connect("AF_INET", "SOCK_STREAM", format!("(\"127.0.0.1\", {port})")),
            ])
        };
        if fs::metadata("/usr/bin/python3").is_ok() {
            assert_eq!(finish(reduced.start(&spec).await.unwrap()).await, (String::new(), Exit::Code(0)));
        }
    }
}
