//! Rows that are there beforehand: of the unassigned prompt, with ids and sessions spread evenly, indexes built last.

use std::path::Path;

use sqlx::{Connection, PgConnection};

/// Some 500 bytes, as a row's metadata usually is.
const METADATA: &str = r#"{"service":"bench","environment":"before","provider":"openai","models":[{"model":"gpt-4o-mini","calls":3,"tokens":1200},{"model":"gpt-4o-2024-11-20","calls":3,"tokens":1300},{"model":"claude-sonnet-4-5","calls":3,"tokens":1250}],"llm_calls":9,"llm_time_ms":8123,"spans":10,"session_id":"session-of-before","user_id":"user-of-before","input":"cite every claim with its source and say plainly when nothing was found about that topic","output":"nothing was found"}"#;

pub(crate) fn sqlite(file: &Path, rows: u64) -> anyhow::Result<()> {
    let db = rusqlite::Connection::open(file)?;
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN")?;
    let indexes: Vec<(String, String)> = db
        .prepare("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'prompt_traces' AND sql IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, _) in &indexes {
        db.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    db.execute(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
         INSERT INTO prompt_traces (id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, metadata, created_at)
         SELECT printf('%08x-0000-4000-8000-%012x', i, i), '00000000-0000-0000-0000-000000000000',
             printf('%08x', i * (4294967295 / ?1)) || lower(hex(randomblob(12))),
             printf('%08x-0000-4000-8000-%012x', (i * 2654435761) & 4294967295, i % 100000),
             1 + i % 5000, '{\"prompt\":1800,\"completion\":1950,\"total\":3750}', 'gpt-4o-mini', 'success', ?2,
             strftime('%Y-%m-%dT%H:%M:%S', 1792540800 + i, 'unixepoch') || '.000000Z'
         FROM n",
        rusqlite::params![rows as i64, METADATA],
    )?;
    for (_, sql) in &indexes {
        db.execute_batch(sql)?;
    }
    db.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

pub(super) async fn postgres(url: &str, rows: u64) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(
        "INSERT INTO public.prompt_traces (prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, metadata,
             created_at)
         SELECT '00000000-0000-0000-0000-000000000000', md5(i::text), md5('s' || i % 100000)::uuid, 1 + i % 5000,
             '{\"prompt\":1800,\"completion\":1950,\"total\":3750}', 'gpt-4o-mini', 'success', $2::jsonb, to_timestamp(1792540800 + i)
         FROM generate_series(1, $1) AS n (i)",
    )
    .bind(rows as i64)
    .bind(METADATA)
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("VACUUM ANALYZE public.prompt_traces; CHECKPOINT").execute(&mut connection).await?;
    Ok(connection.close().await?)
}
