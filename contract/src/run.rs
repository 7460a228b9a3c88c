//! Asks the cases, each in a thread of its own: what one leaves to its thread is not the next one's, and an answer that
//! never comes does not end the run.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    calls::{Told, system, take_told},
    case::{Answer, Case, Linux, Stop, Verdict},
    stage::{Facts, Shared},
};

/// A case with what became of it.
pub struct Row {
    pub case: Arc<Case>,
    pub observed: Option<String>,
    /// Why nothing was observed.
    pub why: Option<String>,
    /// Each call's numbers.
    pub told: Vec<Told>,
    pub verdict: Verdict,
}

impl Row {
    /// One that was not asked.
    pub fn listed(case: Arc<Case>) -> Self {
        let verdict = case.verdict();
        Self { case, observed: None, why: None, told: Vec::new(), verdict }
    }
}

pub fn run(cases: Vec<Arc<Case>>, stage: &Shared) -> Vec<Row> {
    system::survive_faults();
    cases.into_iter().map(|case| ask(case, stage)).collect()
}

fn ask(case: Arc<Case>, stage: &Shared) -> Row {
    if let (true, Linux::Never(why)) = (cfg!(target_os = "linux"), &case.linux) {
        return not_run(case.clone(), why, Vec::new());
    }
    if let Some(why) = case.needs.iter().find_map(|&need| stage.lacks(need)) {
        return not_run(case, why, Vec::new());
    }
    let (answer, told) = in_a_thread(case.clone(), stage.clone());
    let observed = match answer {
        Ok(answer) | Err(Stop::Answered(answer)) => answer,
        Err(Stop::NotRun(why)) => return not_run(case, &why, told),
        Err(Stop::Failed(why)) => format!("no answer: {why}"),
    };
    let verdict = judge(&case, &observed, stage.facts);
    Row { case, observed: Some(observed), why: None, told, verdict }
}

fn in_a_thread(case: Arc<Case>, stage: Shared) -> (Answer, Vec<Told>) {
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || {
        let answer = (case.ask)(&stage);
        // Nobody waits any more where it took too long.
        let _ = sender.send((answer, take_told()));
    });
    if let Err(error) = spawned {
        return (Err(error.into()), Vec::new());
    }
    let end = Instant::now() + LIMIT;
    let why = loop {
        match receiver.recv_timeout(STEP) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => break "the case panicked; see standard error".to_owned(),
            Err(RecvTimeoutError::Timeout) if system::take_fault() => {
                break "the call touched the memory itself".to_owned();
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() > end => break format!("none in {LIMIT:?}"),
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    (Err(Stop::Failed(why)), Vec::new())
}

fn not_run(case: Arc<Case>, why: &str, told: Vec<Told>) -> Row {
    Row { case, observed: None, why: Some(why.to_owned()), told, verdict: Verdict::NotRun }
}

/// On Linux against the decision; on Windows this is what Linux is compared with.
fn judge(case: &Case, observed: &str, facts: Facts) -> Verdict {
    let Linux::Answers(on_linux) = &case.linux else { return Verdict::Differs };
    if cfg!(target_os = "linux") {
        let expected = case.without_engine.as_ref().filter(|_| !facts.engine).unwrap_or(on_linux);
        return if observed == expected { case.verdict() } else { Verdict::Failed };
    }
    if observed == on_linux { Verdict::Same } else { Verdict::Differs }
}

/// Many times what the slowest case takes.
const LIMIT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
