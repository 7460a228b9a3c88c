//! `WSPIoctl`: the form of the call that a service provider has. On Windows Winsock calls it, and programs do not.

use crate::case::{Case, Need};

pub fn cases() -> Vec<Case> {
    let case = |id: &str, about: &str, linux: &str| {
        Case::new("provider", format!("provider.{id}"), "WSPIoctl", about)
            .linux(linux)
            .without_engine(linux.replace("WSAEINVAL", "WSAEOPNOTSUPP"))
            .not_on_windows()
    };
    vec![
        case(
            "query",
            "a query; the last error is left alone",
            "ok, bytes = size; no error; the last error is as before",
        )
        .documented("ok")
        .needs(Need::Record)
        .ask(asked::query),
        case(
            "error",
            "a query that fails: its error is told in the variable, and the last error is left alone",
            "WSAEINVAL, bytes = 0; the last error is as before",
        )
        .ask(asked::error),
        case("error-null", "nowhere to tell the error", "failed, bytes untouched").ask(asked::error_null),
        case(
            "routine",
            "a routine, for the calling thread",
            "WSA_IO_PENDING; once, WSAEINVAL, bytes = 0, in this thread",
        )
        .documented("WSA_IO_PENDING; once")
        .ask(asked::routine),
        case(
            "thread",
            "a routine, for another thread that is named",
            "WSA_IO_PENDING; once, WSAEINVAL, bytes = 0, in the thread that is named",
        )
        .documented("WSA_IO_PENDING; once, WSAEINVAL, bytes = 0, in the thread that is named")
        .ask(asked::thread),
        case("thread-closed", "a routine, for a thread whose name is taken back", "WSA_INVALID_HANDLE")
            .ask(asked::thread_closed),
    ]
}

#[cfg(windows)]
mod asked {
    use crate::{
        case::{Answer, Stop},
        stage::Stage,
    };

    pub use not_here as error;
    pub use not_here as error_null;
    pub use not_here as query;
    pub use not_here as routine;
    pub use not_here as thread;
    pub use not_here as thread_closed;

    pub fn not_here(_stage: &Stage) -> Answer {
        Err(Stop::NotRun("on Windows it is Winsock that calls it".into()))
    }
}

#[cfg(target_os = "linux")]
mod asked {
    use std::{sync::mpsc, thread as threads};

    use crate::{
        calls::{
            self, Operation,
            provider::{ErrorTo, LAST_ERROR_BEFORE, Thread, begin, query as ask},
        },
        case::{Answer, Stop},
        catalogue::{
            overlapped::PATIENCE,
            routines::{ran, ran_in},
        },
        stage::{LARGE, Pair, Query, Stage, number},
    };

    const RECORDS: Query = Query::Records;

    pub fn query(stage: &Stage) -> Answer {
        let (socket, size) = (stage.redirected()?, stage.size(RECORDS)?);
        let (told, last_error) = ask(socket, RECORDS.code(), &mut vec![0; LARGE], ErrorTo::Variable);
        let error = if told.error == 0 { "no error" } else { "an error" };
        Ok(format!("{}; {error}; {}", told.words(Some(size)), as_before(last_error)))
    }

    pub fn error(_: &Stage) -> Answer {
        let pair = Pair::new()?;
        let (told, last_error) = ask(number(&pair.accepted), RECORDS.code(), &mut [0; 64], ErrorTo::Variable);
        Ok(format!("{}; {}", told.words(None), as_before(last_error)))
    }

    pub fn error_null(stage: &Stage) -> Answer {
        let pair = Pair::new()?;
        // It would succeed, where there is a record.
        let socket = stage.redirected().unwrap_or(number(&pair.accepted));
        let (told, _) = ask(socket, RECORDS.code(), &mut vec![0; LARGE], ErrorTo::Null);
        let result = if told.ret == 0 { "ok" } else { "failed" };
        Ok(format!("{result}, {}", crate::words::bytes_words(told.bytes.unwrap_or(0), None)))
    }

    pub fn routine(_: &Stage) -> Answer {
        let (pair, operation) = (Pair::new()?, Operation::new(&[], 64, None));
        let begun = begin(&operation, number(&pair.accepted), RECORDS.code(), None);
        calls::sleep(PATIENCE, true);
        Ok(format!("{}; {}", begun.result(), ran(&operation, None)))
    }

    pub fn thread(_: &Stage) -> Answer {
        let (pair, operation) = (Pair::new()?, Operation::new(&[], 64, None));
        let (sender, receiver) = mpsc::channel();
        threads::scope(|scope| {
            let other = scope.spawn(move || {
                let _ = sender.send(Thread::current());
                calls::sleep(PATIENCE, true);
            });
            let named = receiver.recv().map_err(|_| Stop::Failed("the thread has ended".into()))?;
            let mut named = named?;
            let begun = begin(&operation, number(&pair.accepted), RECORDS.code(), Some(&named));
            let id = other.thread().id();
            other.join().map_err(|_| Stop::Failed("the thread panicked".into()))?;
            named.close();
            Ok(format!("{}; {}", begun.result(), ran_in(&operation, None, id, "in the thread that is named")))
        })
    }

    pub fn thread_closed(_: &Stage) -> Answer {
        let (pair, operation) = (Pair::new()?, Operation::new(&[], 64, None));
        let mut named = Thread::current()?;
        named.close();
        Ok(begin(&operation, number(&pair.accepted), RECORDS.code(), Some(&named)).result())
    }

    fn as_before(last_error: i32) -> &'static str {
        if last_error == LAST_ERROR_BEFORE { "the last error is as before" } else { "the last error is another" }
    }
}
