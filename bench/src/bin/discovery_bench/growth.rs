//! How what a controller costs grows with what it holds: each at three sizes, with the exponent and the ratio of the largest to the smallest.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_discovery::client::{Connection, Rest};
use weft_discovery::database::Transaction;
use weft_discovery::model::{Attachment, Record, Request, Role, Router, Tenant, VniUse, now};
use weft_discovery::pki::TokenText;

use crate::controller::{Controller, Kept, memory};
use crate::median;

/// Tenants are attached to as many routers.
const ROUTERS: usize = 96;
/// Writers at the same time.
const WRITERS: usize = 8;

/// One thing that is measured, at each size.
struct Row {
    what: String,
    sizes: Vec<usize>,
    measured: Vec<f64>,
    unit: &'static str,
}

impl Row {
    fn new(what: &str, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            sizes: Vec::new(),
            measured: Vec::new(),
            unit,
        }
    }

    fn add(&mut self, size: usize, measured: f64) {
        self.sizes.push(size);
        self.measured.push(measured);
    }

    #[allow(clippy::print_stdout, reason = "what the program is for")]
    fn print(&self) {
        let pairs = self.sizes.iter().zip(&self.measured);
        let values: Vec<String> = pairs
            .map(|(size, value)| format!("{size}: {value:.2} {}", self.unit))
            .collect();
        let (Some(first), Some(last)) = (self.measured.first(), self.measured.last()) else {
            return;
        };
        let sizes = (self.sizes.first(), self.sizes.last());
        let (Some(small), Some(large)) = sizes else {
            return;
        };
        let ratio = last / first;
        let exponent = ratio.ln() / (*large as f64 / *small as f64).ln();
        println!(
            "| {} | {} | {exponent:.2} | {ratio:.2} |",
            self.what,
            values.join(", ")
        );
    }
}

/// Measures, and prints the table.
pub(crate) async fn run() -> Result<()> {
    #[allow(clippy::print_stdout, reason = "what the program is for")]
    {
        println!("| what | measured | exponent | ratio |\n|---|---|---|---|");
    }
    for kept in [Kept::File, Kept::Etcd] {
        for row in records(kept).await? {
            row.print();
        }
    }
    keys().await?.print();
    for row in chains().await? {
        row.print();
    }
    Ok(())
}

/// Puts records in bulk.
async fn fill(controller: &Controller, records: Vec<Record>) -> Result<()> {
    let database = controller.database().await?;
    for some in records.chunks(5_000) {
        let some = some.to_vec();
        let put = move |transaction: &mut Transaction<'_>| {
            some.iter()
                .for_each(|record| transaction.put(record.clone()));
            Ok(())
        };
        database.change("bench", "fill", put).await?;
    }
    database.close().await;
    Ok(())
}

fn router(name: String) -> Record {
    Record::Router(Router {
        name,
        role: Role::Router,
        key: String::new(),
        registration: None,
        controller: None,
        expired: true,
        peers: Vec::new(),
        external_address: None,
        claim: None,
        reserved: std::collections::BTreeMap::new(),
    })
}

fn attachment(tenant: &str, router: usize, number: usize) -> Record {
    Record::Attachment(Attachment {
        tenant: tenant.to_owned(),
        router: format!("a{router}"),
        interfaces: vec![format!("i{number}")],
        prefixes: vec!["10.0.0.0/24".parse().unwrap_or_default()],
        redistribute: Vec::new(),
        neighbors: Vec::new(),
        breakout: None,
    })
}

/// Tenants with their VNIs, attached to all routers: so many records.
fn domain(count: usize) -> Vec<Record> {
    let mut records: Vec<Record> = (0..ROUTERS).map(|one| router(format!("a{one}"))).collect();
    for number in 0.. {
        if records.len() >= count {
            break;
        }
        let (name, vni) = (format!("t{number}"), 10_000 + number as u32);
        records.push(Record::Tenant(Tenant {
            name: name.clone(),
            vni,
            home: None,
            id: Some(name.clone()),
            description: None,
        }));
        records.push(Record::Vni(VniUse {
            vni,
            tenant: Some(name.clone()),
            service: None,
            free_at: 0,
            last: None,
        }));
        records.extend((0..ROUTERS).map(|router| attachment(&name, router, number)));
    }
    records
}

/// One write: an attachment of one of the tenants changes.
async fn write(connection: &mut Connection, number: usize, key: Option<&str>) -> Result<()> {
    let path = format!(
        "tenants/t{}/attachments/a{}",
        number % 40,
        number / 40 % ROUTERS
    );
    let (third, fourth) = (number % 256, number / 256 % 256);
    let body = json!({ "interfaces": [format!("i{}", number % 40)], "prefixes": [format!("10.{third}.{fourth}.0/24")] });
    let body = Some(&body);
    connection.ask("PUT".parse()?, &path, body, key).await?;
    Ok(())
}

/// Milliseconds that writes take one after another.
async fn alone(rest: &Rest, count: usize, key: Option<&str>) -> Result<f64> {
    let mut connection = rest.connect().await?;
    let mut samples = Vec::new();
    for number in 0..count {
        let key = key.map(|key| format!("{key}{number}"));
        let began = Instant::now();
        write(&mut connection, number, key.as_deref()).await?;
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(&mut samples))
}

/// Writes per second of several at the same time.
async fn together(rest: &Rest, count: usize) -> Result<f64> {
    let began = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let rest = rest.clone();
        tokio::spawn(async move {
            let mut connection = rest.connect().await?;
            for number in (writer..count).step_by(WRITERS) {
                write(&mut connection, 1_000_000 + number, None).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn records(kept: Kept) -> Result<Vec<Row>> {
    let place = match kept {
        Kept::File => "a file",
        Kept::Etcd => "etcd",
    };
    let mut one = Row::new(&format!("a write, with so many records in {place}"), "ms");
    let what = format!("writes of {WRITERS} at the same time, with so many records in {place}");
    let mut all = Row::new(&what, "/s");
    let mut start = Row::new(&format!("start with so many records in {place}"), "s");
    let mut resident = Row::new(&format!("resident with so many records in {place}"), "MiB");
    for size in [4_000, 40_000, 400_000] {
        let Some(mut controller) = Controller::create("weft-growth", kept).await? else {
            break;
        };
        fill(&controller, domain(size)).await?;
        let began = Instant::now();
        let rest = controller.start().await?;
        start.add(size, began.elapsed().as_secs_f64());
        one.add(size, alone(&rest, 300, None).await?);
        all.add(size, together(&rest, 8_000).await?);
        resident.add(size, mebibytes(memory(controller.pid()?, "VmRSS")?));
    }
    Ok(vec![one, all, start, resident])
}

async fn keys() -> Result<Row> {
    let what = "a write with an Idempotency-Key, with so many of them remembered";
    let mut row = Row::new(what, "ms");
    for size in [100, 1_000, 10_000] {
        let controller = Controller::create("weft-growth", Kept::File).await?;
        let mut controller = controller.context("a file")?;
        let operator =
            std::fs::read_to_string(controller.folder.join("controller/operator.token"))?;
        let operator: TokenText = operator.parse()?;
        let mut records = domain(4_000);
        records.extend((0..size).map(|number| {
            Record::Request(Request {
                actor: operator.id.clone(),
                key: format!("held{number}"),
                hash: "0".repeat(64),
                body: json!({ "name": format!("t{number}") }),
                at: now(),
            })
        }));
        fill(&controller, records).await?;
        let rest = controller.start().await?;
        row.add(size, alone(&rest, 300, Some("key")).await?);
    }
    Ok(row)
}

/// One of so many chains changes, ten thousand times.
async fn chains() -> Result<Vec<Row>> {
    let mut time = Row::new("a change of one of so many chains", "ms");
    let mut file = Row::new(
        "the file after 10,000 changes of one of so many chains",
        "MiB",
    );
    let mut peak = Row::new("the controller's peak then, history looked through", "MiB");
    let mut page = Row::new("the largest page of that history", "MiB");
    for size in [20, 60, 200] {
        let controller = Controller::create("weft-growth", Kept::File).await?;
        let mut controller = controller.context("a file")?;
        fill(&controller, domain(1_000)).await?;
        let rest = controller.start().await?;
        let mut connection = rest.connect().await?;
        let mut ask = async |path: String, body: Value| {
            connection
                .ask("PUT".parse()?, &path, Some(&body), None)
                .await?;
            anyhow::Ok(())
        };
        ask("tenants/t0/services/firewall".into(), json!({})).await?;
        let chain = |number: usize, port: usize| {
            let path = format!("tenants/t0/chains/c{number}");
            let matches = json!({
                "source": ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"], "destination": [format!("10.9.{number}.0/24")],
                "protocol": "tcp", "destination_ports": [port, "8000-8100", "9000-9100"],
            });
            (path, json!({ "match": matches, "services": ["firewall"] }))
        };
        for number in 0..size {
            let (path, body) = chain(number, 80);
            ask(path, body).await?;
        }
        let mut samples = Vec::new();
        for change in 0..10_000 {
            let (path, body) = chain(change % size, 1 + change);
            let began = Instant::now();
            ask(path, body).await?;
            samples.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        time.add(size, median(&mut samples));
        let mut largest = 0;
        let mut before = u64::MAX;
        loop {
            let path = format!("revisions?before={before}");
            let answer = connection.ask("GET".parse()?, &path, None, None).await?;
            largest = largest.max(answer.to_string().len());
            let items = answer["items"].as_array().context("items")?;
            let Some(last) = items.last() else { break };
            before = last["number"].as_u64().context("a number")?;
        }
        page.add(size, mebibytes(largest as u64));
        file.add(size, mebibytes(std::fs::metadata(controller.file())?.len()));
        peak.add(size, mebibytes(memory(controller.pid()?, "VmHWM")?));
    }
    Ok(vec![time, file, peak, page])
}

fn mebibytes(octets: u64) -> f64 {
    octets as f64 / 1_048_576.0
}
