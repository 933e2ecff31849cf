//! Runs rows: each as a caller of a real gate, in front of a world of its own.
//!
//! 1. Rows with the same settings share a gate; each has its own listener, caller and tokens there, and they run at once.
//! 2. The gate asks in the background, so a refused request is sent again until its reason is the right one, for a bounded
//!    time. The reasons before must not be wrong either: each is `ambiguous`, the right one, or one that the row allows.
//! 3. When the gate has nothing more to ask, the reason has to be the same.
//! 4. The fault of a row is one line; the list of rows that are known to fail has it word for word.

use std::time::{Duration, Instant};

use super::cast::Cast;
use super::known::KNOWN;
use super::observe;
use super::row::{Broken, Kind, Row, Step};
use super::wire::Said;
use super::world::World;
use crate::harness::gate::PATIENCE;
use crate::harness::{Answer, Caller, Gate, Upstream};

/// The time that the wrong reason must persist for a row that is known to fail.
const SHORT: Duration = Duration::from_millis(2500);

/// Nothing is asked for so long: there is nothing more to ask.
const QUIET: Duration = Duration::from_millis(250);

/// The gate asks the same again ten seconds later, at the soonest.
const AGE: Duration = Duration::from_millis(10_300);

/// On a busy machine TLS can take seconds, and a question that has no answer is another row.
const UPSTREAM: &str = "upstream: {ca_file: '{ca}', connect_to: '{upstream}', timeouts: {connect: 30s}}\n";

/// A row that runs.
pub struct Run<'a> {
    pub row: &'a Row,
    pub cast: &'a Cast,
    pub world: &'a World,
    pub gate: &'a Gate,
}

/// Runs the rows of a group, and holds them to the list of those that are known to fail.
#[track_caller]
pub fn judge(rows: &[Row]) {
    let casts: Vec<_> = (1..=rows.len()).map(Cast::new).collect();
    let worlds: Vec<_> = rows.iter().zip(&casts).map(|(row, cast)| cast.world(row)).collect();
    let metrica = super::double::serve(&worlds);
    let mut shared: Vec<Vec<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let fits = |gate: &&mut Vec<usize>| {
            let first = &rows[gate[0]];
            !row.alone && !first.alone && row.identity == first.identity
        };
        match shared.iter_mut().find(fits) {
            Some(gate) => gate.push(index),
            None => shared.push(vec![index]),
        }
    }
    let gates: Vec<_> = shared.iter().map(|indices| start(&metrica, indices, rows, &casts)).collect();
    let mut failing = Vec::new();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (gate, indices) in gates.iter().zip(&shared) {
            for index in indices {
                let run = Run { row: &rows[*index], cast: &casts[*index], world: &worlds[*index], gate };
                running.push((rows[*index].cause, scope.spawn(move || run.wrong())));
            }
        }
        for (cause, thread) in running {
            failing.extend(thread.join().unwrap().map(|wrong| (cause, wrong)));
        }
    });
    let known: Vec<_> = KNOWN.iter().filter(|(cause, _)| rows.iter().any(|row| row.cause == *cause)).collect();
    let mut report = Vec::new();
    for (cause, wrong) in &failing {
        if !known.iter().any(|(known, how)| known == cause && how == wrong) {
            report.push(format!("it fails: (\"{cause}\", \"{wrong}\")"));
        }
    }
    for (cause, how) in known {
        if !failing.iter().any(|(failing, _)| failing == cause) {
            report.push(format!("it holds, and is on the list: (\"{cause}\", \"{how}\")"));
        }
    }
    assert!(report.is_empty(), "tests/it/judge/known.rs is not what is so:\n{}", report.join("\n"));
}

/// A gate with the callers of these rows (rule 1).
fn start(metrica: &Upstream, indices: &[usize], rows: &[Row], casts: &[Cast]) -> Gate {
    let parts: Vec<_> = indices.iter().map(|index| casts[*index].configuration(&rows[*index])).collect();
    let part = |at: usize| parts.iter().map(|part| part[at].as_str()).collect::<String>();
    let identity = if rows[indices[0]].identity {
        "identity: {url: 'https://login.yandex.ru/info', ca_file: '{ca}', connect_to: '{upstream}'}\n"
    } else {
        ""
    };
    let config = format!(
        "listeners:\n{}callers:\n{}tokens:\n{}{identity}admin: {{address: '127.0.0.1:0', recheck: true}}\n{UPSTREAM}",
        part(0),
        part(1),
        part(2)
    );
    let mut plan = Gate::plan(metrica, &config).workers(1);
    for index in indices {
        for token in rows[*index].tokens.iter().filter(|token| token.kind != Kind::Missing) {
            plan = plan.token(&casts[*index].alias(token.alias), &casts[*index].secret(token, 0));
        }
    }
    plan.start()
}

impl Run<'_> {
    /// The fault of the row (rule 4).
    fn wrong(&self) -> Option<String> {
        let row = self.row;
        if row.identity {
            self.until(PATIENCE, || {
                let asked = self.world.heard().iter().filter(|request| request.path == "/info").count();
                asked >= row.tokens.len()
            });
            self.settle();
        }
        let mut replaced = 0;
        for step in row.before {
            if let Err(wrong) = self.take(step, &mut replaced) {
                return Some(format!("before: {wrong}"));
            }
        }
        let said = self.refused(row.request, row.reasons);
        let reason = said.as_ref().ok().and_then(|answer| answer.field("x-gate-reason")).unwrap_or(row.reasons[0]);
        let doctor = observe::doctor(self).err();
        let alert = observe::alert(row, reason).err();
        let mut wrong: Vec<String> = match &said {
            Err(reason) => vec![reason.clone()],
            Ok(answer) => {
                let status = (answer.status != row.status).then(|| format!("status {}", answer.status));
                let (hint, advice) = (observe::hint(row, answer).err(), observe::advice(row, reason).err());
                let seen = [status, hint, advice, observe::metric(self, reason).err()];
                seen.into_iter().flatten().collect()
            }
        };
        wrong.extend([alert, doctor].into_iter().flatten());
        (!wrong.is_empty()).then(|| wrong.join(", "))
    }

    /// Whether it is no use to wait for another reason than `said`.
    fn is_over(&self, start: Instant, said: &str) -> bool {
        let known = KNOWN.iter().find(|(cause, _)| *cause == self.row.cause);
        let is_known = known.is_some_and(|(_, wrong)| wrong.split(',').next() == Some(said));
        start.elapsed() > if is_known { SHORT } else { PATIENCE }
    }

    /// Waits until the condition holds; returns whether it came to hold.
    pub fn until(&self, patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Waits until the gate asks nothing more with the tokens of the row.
    fn settle(&self) {
        let own = || self.world.heard().iter().filter(|request| request.is_own).count();
        let (mut count, mut since) = (own(), Instant::now());
        self.until(PATIENCE, || {
            if own() != count {
                (count, since) = (own(), Instant::now());
            }
            since.elapsed() >= QUIET
        });
    }

    /// Sends a request.
    fn ask(&self, request: &str) -> Answer {
        let request = self.cast.names(request);
        self.gate
            .send(&self.cast.listener(), format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))
    }

    /// Sends a request until it is refused for one of these reasons; the error is the reason given instead (rules 2 and 3).
    fn refused(&self, request: &str, reasons: &[&str]) -> Result<Answer, String> {
        let reason = |answer: &Answer| match answer.field("x-gate-reason") {
            Some(reason) => reason.to_owned(),
            None => answer.status.to_string(),
        };
        let is_right = |answer: &Answer| reasons.contains(&reason(answer).as_str());
        let start = Instant::now();
        let mut wrong = None;
        let answer = loop {
            let answer = self.ask(request);
            if is_right(&answer) {
                break answer;
            }
            let said = reason(&answer);
            if self.is_over(start, &said) {
                return Err(said);
            }
            let is_fair = answer.status < 400 || said == "ambiguous" || self.row.meanwhile.contains(&said.as_str());
            wrong = wrong.or((!is_fair).then_some(said));
            std::thread::sleep(Duration::from_millis(40));
        };
        if let Some(wrong) = wrong {
            return Err(format!("first {wrong}"));
        }
        self.settle();
        for _ in 0..2 {
            let again = self.ask(request);
            let said = reason(&again);
            // The gate refuses requests with an ended token from then on.
            let ended = reasons.contains(&"token_invalid") && ["token_suspended", "outage"].contains(&said.as_str());
            if !is_right(&again) && !ended {
                return Err(format!("later {said}"));
            }
        }
        Ok(answer)
    }

    fn take(&self, step: &Step, replaced: &mut usize) -> Result<(), String> {
        let cast = self.cast;
        match *step {
            Step::Works(request) => {
                let mut answer = self.ask(request);
                self.until(PATIENCE, || {
                    if answer.status >= 300 {
                        answer = self.ask(request);
                    }
                    answer.status < 300
                });
                let said = answer.field("x-gate-reason").unwrap_or_default();
                return if answer.status < 300 { Ok(()) } else { Err(format!("{} {said}", answer.status)) };
            }
            Step::Refused(request, reason) => return self.refused(request, &[reason]).map(|_| ()),
            Step::Grant(counter, login, right) => {
                let counter = cast.counter(counter);
                let login = cast.name(login).to_owned();
                self.world.state().counters.get_mut(&counter).unwrap().grants.insert(login, right.to_owned());
            }
            Step::Take(counter, login) => {
                let counter = cast.counter(counter);
                self.world.state().counters.get_mut(&counter).unwrap().grants.remove(cast.name(login)).unwrap();
            }
            Step::Hide(counter) => {
                self.world.state().counters.get_mut(&cast.counter(counter)).unwrap().is_public = false;
            }
            Step::Unrepresent(who, whom) => {
                let pair = (cast.name(who).to_owned(), cast.name(whom).to_owned());
                assert!(self.world.state().represents.remove(&pair));
            }
            Step::Die(token, death) => {
                let token = self.row.tokens.iter().find(|known| known.alias == token).unwrap();
                let secret = cast.secret(token, *replaced);
                self.world.state().tokens.get_mut(&secret).unwrap().death = Some(death);
            }
            Step::Break(line, broken) => self.world.state().broken.push((cast.names(line), said(broken))),
            Step::Replace(token, scopes) => {
                let token = self.row.tokens.iter().find(|known| known.alias == token).unwrap();
                *replaced += 1;
                let secret = cast.secret(token, *replaced);
                self.world.state().tokens.insert(secret.clone(), cast.token(token, scopes));
                self.gate.replace_token(&cast.alias(token.alias), &secret);
            }
            Step::Age => std::thread::sleep(AGE),
            Step::HangUp => self.gate.signal("HUP"),
            Step::Recheck => {
                let mut caller = Caller::connect(self.gate.admin_place());
                caller.send("POST /recheck HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
                let status = caller.answer().status;
                return if status == 202 { Ok(()) } else { Err(format!("recheck {status}")) };
            }
        }
        Ok(())
    }
}

fn said(broken: Broken) -> Said {
    match broken {
        Broken::Page(status) => Said::page(status, "Error"),
        Broken::Portal => Said::page(200, "Log in to the network"),
        Broken::Error(status, error_type) => Said::error(status, error_type, "Quota or limit"),
    }
}
