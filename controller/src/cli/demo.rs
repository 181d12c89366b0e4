//! `dotmac demo break …`: breaks something in the fleet of `make up`, prints the time line, and counts what was lost.
//! It writes through the API all the while, and afterwards asks for every write that was acknowledged.

mod agent;
mod controllers;
mod instance;
mod leader;
mod scene;
mod tally;
mod timeline;
mod writer;

use clap::{Subcommand, ValueEnum};

use self::scene::Scene;
use super::{failure::Failure, find::Context};

#[derive(Subcommand)]
pub(crate) enum Demo {
    /// Break one thing
    Break {
        /// What to break
        #[arg(value_enum)]
        what: What,
    },
}

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Kill the controller that leads
    Leader,
    /// Kill an agent whose instances run
    Agent,
    /// Kill an instance
    Instance,
    /// Kill all controllers, and an instance while they are away
    Controllers,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Break { what } = self;
        let scene = Scene::set(context).await?;
        let verdict = match what {
            What::Leader => leader::run(&scene).await,
            What::Agent => agent::run(&scene).await,
            What::Instance => instance::run(&scene).await,
            What::Controllers => controllers::run(&scene).await,
        };
        scene.close(verdict).await
    }
}
