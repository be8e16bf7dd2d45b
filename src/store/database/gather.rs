//! Ends of runs that changed nothing, which are nearly all, written many at once.
//!
//! Who ends a run while others do waits for a moment, and shares their transaction; who is alone does not wait. What must hold: an
//! answer comes after the commit; one project's row that cannot be written does not take others with it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Writer,
    endings::{Ending, Revisions},
};
use crate::{project::ProjectId, store::Error};

/// So many at once, so that a lease that is checked among them is not held up for long.
const MOST: usize = 200;

/// An end that waits to be written.
struct Waiting {
    ending: Ending,
    answer: oneshot::Sender<Result<i64, Error>>,
}

/// Takes the ends of runs. What writes them is begun with the first, and again should it ever have died.
#[derive(Default)]
pub(super) struct Gatherer(Mutex<Option<Begun>>);

struct Begun {
    sender: mpsc::UnboundedSender<Waiting>,
    _task: JoinSet<()>,
}

impl Gatherer {
    /// Writes how a run ended, and gives its project's revision. Ends that come while others are written, and within `pause` after
    /// that, go together.
    pub(super) async fn write(
        &self,
        writer: &Writer,
        pause: Duration,
        ending: Ending,
    ) -> Result<i64, Error> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { ending, answer };
        let cut_off = || Error::Unavailable("what writes the ends of runs was cut off".to_owned());
        let sender = self.sender(writer, pause);
        sender.send(waiting).map_err(|_| cut_off())?;
        answered.await.map_err(|_| cut_off())?
    }

    fn sender(&self, writer: &Writer, pause: Duration) -> mpsc::UnboundedSender<Waiting> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = &*begun
            && !begun.sender.is_closed()
        {
            return begun.sender.clone();
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(write_all(writer.clone(), receiver, pause));
        *begun = Some(Begun {
            sender: sender.clone(),
            _task: task,
        });
        sender
    }
}

async fn write_all(writer: Writer, mut waiting: mpsc::UnboundedReceiver<Waiting>, pause: Duration) {
    let mut next_at = Instant::now();
    while let Some(first) = waiting.recv().await {
        sleep_until(next_at).await;
        let mut batch = vec![first];
        while batch.len() < MOST
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        // Who gave up has given its lease back, or tried to.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if !batch.is_empty() {
            write(&writer, batch).await;
        }
        next_at = Instant::now() + pause;
    }
}

async fn write(writer: &Writer, batch: Vec<Waiting>) {
    let (answers, endings): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|it| ((it.ending.run(), it.answer), it.ending))
        .unzip();
    match writer.write(&endings).await {
        Ok(revisions) => {
            for (run, answer) in answers {
                tell(answer, revision(&revisions, run));
            }
        }
        // The database refused, so nothing was written; perhaps for one row among them, which is locked or cannot be written.
        Err(Error::Database(sqlx::Error::Database(_))) if endings.len() > 1 => {
            let alone = answers.into_iter().zip(endings);
            let alone = alone.map(async |((run, answer), ending)| {
                let written = writer.write(&[ending]).await;
                let told = written.and_then(|revisions| revision(&revisions, run));
                tell(answer, told);
            });
            join_all(alone).await;
        }
        Err(error) => {
            let error = writer.explain(error).await;
            let said = error.to_string();
            let mut first = Some(error);
            for (_, answer) in answers {
                let error = first.take();
                tell(
                    answer,
                    Err(error.unwrap_or_else(|| Error::Unavailable(said.clone()))),
                );
            }
        }
    }
}

fn revision(revisions: &Revisions, run: (ProjectId, i64)) -> Result<i64, Error> {
    let revision = revisions.get(&run).copied();
    let (project, epoch) = run;
    revision.ok_or(Error::LeaseLost { project, epoch })
}

/// Who does not wait any more was cut off, and knows nothing of how it ended, as of any commit whose answer is lost.
fn tell(answer: oneshot::Sender<Result<i64, Error>>, result: Result<i64, Error>) {
    if answer.send(result).is_err() {
        tracing::debug!(event = "run.end_untold", "nobody waits for it any more");
    }
}
