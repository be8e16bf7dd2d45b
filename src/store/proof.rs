//! That a project's change log gives its catalog, found out page by page.

use super::{Error, Store};
use crate::{
    catalog::log::{Proof, Verification},
    clock::Instant,
    project::ProjectId,
};

/// How many lines of a log are in memory at once.
const PAGE: u32 = 2_000;

/// Reads a project's whole change log and compares what it leads to with what is stored.
///
/// The end of the log and the catalog are read first, in one moment. The lines up to there need no common moment: a commit
/// appends and changes none of them. Retention does delete some, and says so; the log is then read anew.
///
/// # Errors
/// When the store fails. That something contradicts is no error.
pub async fn verify(store: &dyn Store, id: &ProjectId, now: Instant) -> Result<Proof, Error> {
    let mut end = store.load_log_end(id).await?;
    loop {
        let mut verification = Verification::new(end.log_since);
        let mut seq = 0;
        while seq < end.seq {
            let page = store.read_log(id, seq, PAGE).await?;
            let Some(last) = page.last() else { break };
            seq = last.seq;
            for logged in page.iter().take_while(|logged| logged.seq <= end.seq) {
                verification.take(logged.line());
            }
        }
        let since = store.load_log_end(id).await?;
        if since.log_since == end.log_since {
            for key in &end.misnamed {
                verification.misname(key);
            }
            return Ok(verification.finish(&end.catalog, end.revision, now));
        }
        end = since;
    }
}
