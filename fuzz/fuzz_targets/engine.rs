//! One engine for all runs of a target. It has no server, writes nothing and reads nothing.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use superserve::client::{self, Client};
use superserve::clock::Clock;
use superserve::script::{
    Access, Amount, Bar, Connection, Engine, Host, Interrupt, Limits, Line, Options, Shell, ShellAnswer, ShellOrder,
    Terminal,
};

struct Nobody;

impl Connection for Nobody {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        Box::pin(async {
            Err(client::Error::Unreachable { message: "there is no server".to_owned(), hint: None })
        })
    }

    fn at(&self, _: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        self.connect()
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        Box::pin(async { None })
    }
}

impl Terminal for Nobody {
    fn out(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn err(&self, _: &str) {}

    fn out_is_terminal(&self) -> bool {
        false
    }

    fn err_is_terminal(&self) -> bool {
        false
    }

    fn in_is_terminal(&self) -> bool {
        false
    }

    fn out_colour(&self) -> bool {
        false
    }

    fn err_colour(&self) -> bool {
        false
    }

    fn width(&self) -> Option<usize> {
        None
    }

    fn read_line(&self, _: &str) -> io::Result<Line> {
        Ok(Line::End)
    }

    fn read_hidden(&self, _: &str) -> io::Result<Line> {
        Ok(Line::End)
    }

    fn bar(&self, _: &str, _: Amount) -> Box<dyn Bar> {
        Box::new(())
    }
}

impl Shell for Nobody {
    fn run(&self, _: ShellOrder) -> LocalBoxFuture<'_, std::io::Result<ShellAnswer>> {
        Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
    }
}

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's engine.
pub fn with(work: impl FnOnce(&Engine)) {
    ENGINE.with_borrow_mut(|engine| {
        work(engine.get_or_insert_with(|| {
            Engine::new(Host {
                connection: Rc::new(Nobody),
                terminal: Rc::new(Nobody),
                shell: Rc::new(Nobody),
                access: Access::default(),
                clock: Clock::system(),
                options: Options::default(),
                fields: Rc::new([]),
                interrupt: Interrupt::default(),
                limits: Limits::default(),
                env: Rc::new(|_| None),
            })
        }));
    });
}
