//! The command line: typed arguments, decided settings, dispatch; the only owner of the terminal.

mod error;
mod server;
mod ui;

pub fn run(args: Vec<std::ffi::OsString>) -> i32 {
    let ui = ui::Ui::new(ui::Colour::Auto);
    let config = match crate::config::Config::load() {
        Ok(c) => c,
        Err(e) => return error::Report::from(&e).tell(&ui, false),
    };
    let words: Vec<&str> = args.iter().skip(1).filter_map(|a| a.to_str()).collect();
    let r = match words.as_slice() {
        ["serve"] => server::serve(config, None, &crate::daemon::Serve::default()),
        ["server", "status"] => server::status(&config, &ui, false),
        ["server", "json"] => server::status(&config, &ui, true),
        ["server", "start"] => server::start(&config, &ui, None),
        ["server", "stop"] => server::stop(&config, &ui),
        ["server", "logs"] => server::logs(&config, &ui, 100),
        _ => Ok(9),
    };
    r.unwrap_or_else(|e| e.tell(&ui, false))
}
