//! `mesh create`, `mesh list`, `invite`, `join`.

use bowline_broker::exit::Failure;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::member;
use super::output::{Output, Table, text};

#[derive(Subcommand, Debug)]
pub(super) enum MeshVerb {
    /// Make a mesh at a broker, and join it as its admin.
    Create(CreateArgs),
    /// The meshes that this user joined.
    List,
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The mesh's name for people: [a-z0-9._-]+
    slug: String,
    /// The broker: ws(s)://host[:port]/ws
    #[arg(long, value_name = "URL")]
    broker: String,
    /// Let the broker read bodies (applications, browsers). Cannot be changed later.
    #[arg(long)]
    open: bool,
    /// What others call you there; your host's name by default.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct InviteArgs {
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
    /// Let the one who joins invite, kick and ban.
    #[arg(long)]
    admin: bool,
    /// How long the link works, in hours.
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    hours: u64,
    /// How many hosts may join by it; any number by default.
    #[arg(long)]
    uses: Option<u32>,
}

#[derive(Args, Debug)]
pub(super) struct JoinArgs {
    /// bowline://join/… as `bowline invite` printed it
    link: String,
    /// What others call you there; your host's name by default.
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(verb: MeshVerb, output: Output) -> Result<(), Failure> {
    match verb {
        MeshVerb::Create(args) => create(args, output).await,
        MeshVerb::List => list(output).await,
    }
}

async fn create(args: CreateArgs, output: Output) -> Result<(), Failure> {
    let body = json!({
        "slug": args.slug,
        "broker_url": args.broker,
        "policy": if args.open { "open" } else { "sealed" },
        "display_name": args.name,
    });
    let mesh = member()?.post("/v1/meshes", &body).await?.body;
    output.say(
        format!(
            "made mesh {} ({})\ninvite another host with `bowline invite --mesh {}`",
            text(&mesh, "slug"),
            text(&mesh, "policy"),
            text(&mesh, "slug")
        ),
        &mesh,
    )
}

pub(super) async fn invite(args: InviteArgs, output: Output) -> Result<(), Failure> {
    let body = json!({
        "mesh": args.mesh,
        "role": if args.admin { "admin" } else { "member" },
        "expires_in_s": args.hours.saturating_mul(3600),
        "uses": args.uses,
    });
    let invite = member()?.post("/v1/invites", &body).await?.body;
    output.say(text(&invite, "invite"), &invite)
}

pub(super) async fn join(args: JoinArgs, output: Output) -> Result<(), Failure> {
    let body = json!({ "invite": args.link, "display_name": args.name });
    let mesh = member()?.post("/v1/meshes/join", &body).await?.body;
    let joined = if mesh["already_member"] == Value::Bool(true) {
        "was a member of"
    } else {
        "joined"
    };
    output.say(
        format!(
            "{joined} mesh {} ({})",
            text(&mesh, "slug"),
            text(&mesh, "policy")
        ),
        &mesh,
    )
}

async fn list(output: Output) -> Result<(), Failure> {
    let answer = member()?.get("/v1/meshes").await?;
    let mut table = Table::new(["MESH", "POLICY", "BROKER"]);
    for mesh in answer["meshes"].as_array().into_iter().flatten() {
        table.row([
            text(mesh, "slug"),
            text(mesh, "policy"),
            text(mesh, "broker_url"),
        ]);
    }
    let human = if table.is_empty() {
        "no mesh yet: make one with `bowline mesh create`, or join one with `bowline join LINK`"
            .into()
    } else {
        table.render()
    };
    output.say(human, &answer)
}
