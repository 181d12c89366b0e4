//! What is asked of the cluster itself.

use dotmac_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

/// Who takes part in the replicated log, as its leader says once that is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteMembers {
    /// Those with a vote.
    pub voters: Vec<NodeId>,
    /// Those without one.
    pub learners: Vec<NodeId>,
}
