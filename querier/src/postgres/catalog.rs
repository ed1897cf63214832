//! `pg_catalog` and `information_schema` as tables in memory: what clients ask to learn which tables, columns and types there are.
//!
//! Columns and meanings are those of PostgreSQL 16's manual ("System Catalogs", "The Information Schema"). Tables of things that do
//! not exist here (indexes, triggers, …) are empty.

mod columns;

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider},
    datasource::MemTable,
    error::Result,
};

use self::columns::{EMPTY, FILLED, INFORMATION_EMPTY, INFORMATION_FILLED};
use super::types::{self, ColumnType, TYPE_KEY};

/// The object ids of schemas, as in PostgreSQL where it has them fixed.
const PG_CATALOG: i64 = 11;
const PUBLIC: i64 = 2200;
const INFORMATION_SCHEMA: i64 = 13_000;
/// The one role.
const ROLE: i64 = 10;
/// The first object id of what is not PostgreSQL's own.
const FIRST: i64 = 16_384;
/// The object id of `promql()` in `pg_proc`.
pub const PROMQL: i64 = FIRST + 100;

/// A table of the data.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its object id.
    pub oid: i64,
    /// Its name.
    pub name: String,
    /// The object id of its schema.
    pub namespace: i64,
    /// Its columns.
    pub schema: SchemaRef,
}

impl Relation {
    /// Whether its name needs its schema: it is in no schema of the search path.
    pub fn hidden(&self) -> bool {
        self.namespace == INFORMATION_SCHEMA
    }
}

/// What the catalogue tells about.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The name of the database.
    pub database: String,
    /// The name of the user.
    pub user: String,
    /// The session's settings.
    pub settings: Vec<(String, String)>,
    /// The number of the connection.
    pub pid: i32,
    /// The tables.
    pub relations: Vec<Relation>,
}

impl Catalog {
    /// The data's tables, and the catalogue's own.
    pub fn relations(tables: Vec<(String, SchemaRef)>) -> Vec<Relation> {
        let public = tables.into_iter().zip(FIRST..).map(|((name, schema), oid)| Relation {
            oid,
            name,
            namespace: PUBLIC,
            schema,
        });
        let pg = FILLED.iter().chain(EMPTY).map(|spec| (spec, PG_CATALOG));
        let information = INFORMATION_FILLED.iter().chain(INFORMATION_EMPTY);
        let own = pg.chain(information.map(|spec| (spec, INFORMATION_SCHEMA)));
        let own = own.zip(14_000..).map(|(((name, spec), namespace), oid)| Relation {
            oid: system_oid(name).unwrap_or(oid),
            name: (*name).to_owned(),
            namespace,
            schema: schema_of(spec),
        });
        public.chain(own).collect()
    }

    /// The data's tables.
    fn public(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter().filter(|r| r.namespace == PUBLIC)
    }

    /// Registers the schemas `pg_catalog` and `information_schema`.
    pub fn register(&self, catalog: &dyn CatalogProvider) -> Result<()> {
        let pg = MemorySchemaProvider::new();
        for (name, spec) in FILLED.iter().chain(EMPTY) {
            pg.register_table((*name).to_owned(), Arc::new(mem_table(spec, self.pg_rows(name))?))?;
        }
        catalog.register_schema("pg_catalog", Arc::new(pg))?;
        let information = MemorySchemaProvider::new();
        for (name, spec) in INFORMATION_FILLED.iter().chain(INFORMATION_EMPTY) {
            let rows = self.information_rows(name);
            information.register_table((*name).to_owned(), Arc::new(mem_table(spec, rows)?))?;
        }
        catalog.register_schema("information_schema", Arc::new(information))?;
        Ok(())
    }

    fn pg_rows(&self, table: &str) -> Vec<Row> {
        match table {
            "pg_namespace" => {
                [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (INFORMATION_SCHEMA, "information_schema")]
                    .map(|(oid, name)| {
                        row([("oid", oid.into()), ("nspname", name.into()), ("nspowner", ROLE.into())])
                    })
                    .into()
            }
            "pg_database" => vec![row([
                ("oid", (FIRST - 1).into()),
                ("datname", self.database.as_str().into()),
                ("datdba", ROLE.into()),
                ("encoding", 6.into()),
                ("datlocprovider", "c".into()),
                ("datallowconn", true.into()),
                ("datconnlimit", (-1).into()),
                ("dattablespace", 1663.into()),
                ("datcollate", "C".into()),
                ("datctype", "C".into()),
            ])],
            "pg_tablespace" => {
                vec![row([("oid", 1663.into()), ("spcname", "pg_default".into()), ("spcowner", ROLE.into())])]
            }
            "pg_roles" | "pg_authid" => vec![row([
                ("oid", ROLE.into()),
                ("rolname", self.user.as_str().into()),
                ("rolinherit", true.into()),
                ("rolcanlogin", true.into()),
                ("rolconnlimit", (-1).into()),
            ])],
            "pg_user" => vec![row([("usename", self.user.as_str().into()), ("usesysid", ROLE.into())])],
            "pg_settings" => self
                .settings
                .iter()
                .map(|(name, value)| {
                    row([
                        ("name", name.as_str().into()),
                        ("setting", value.as_str().into()),
                        ("context", "user".into()),
                        ("vartype", "string".into()),
                        ("source", "default".into()),
                    ])
                })
                .collect(),
            "pg_am" => vec![row([("oid", 2.into()), ("amname", "heap".into()), ("amtype", "t".into())])],
            "pg_language" => vec![row([("oid", 12.into()), ("lanname", "internal".into())])],
            "pg_class" => self.relations.iter().map(class_row).collect(),
            "pg_attribute" => self.relations.iter().flat_map(attribute_rows).collect(),
            "pg_type" => type_rows(),
            "pg_proc" => vec![row([
                ("oid", PROMQL.into()),
                ("proname", "promql".into()),
                ("pronamespace", PUBLIC.into()),
                ("proowner", ROLE.into()),
                ("prolang", 12.into()),
                ("prokind", "f".into()),
                ("proretset", true.into()),
                ("provolatile", "s".into()),
                ("proparallel", "s".into()),
                ("pronargs", 4.into()),
                ("prorettype", 2249.into()),
                ("prosrc", "promql".into()),
            ])],
            "pg_tables" => self
                .public()
                .map(|r| {
                    row([
                        ("schemaname", "public".into()),
                        ("tablename", r.name.as_str().into()),
                        ("tableowner", self.user.as_str().into()),
                    ])
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn information_rows(&self, table: &str) -> Vec<Row> {
        let database = || V::from(self.database.as_str());
        match table {
            "schemata" => ["public", "pg_catalog", "information_schema"]
                .map(|schema| {
                    row([
                        ("catalog_name", database()),
                        ("schema_name", schema.into()),
                        ("schema_owner", self.user.as_str().into()),
                    ])
                })
                .into(),
            "tables" => {
                let public = self.public().map(|r| ("public", r.name.as_str(), "BASE TABLE"));
                let pg = FILLED.iter().chain(EMPTY).map(|(name, _)| ("pg_catalog", *name, "VIEW"));
                let information = INFORMATION_FILLED.iter().chain(INFORMATION_EMPTY);
                let information = information.map(|(name, _)| ("information_schema", *name, "VIEW"));
                public
                    .chain(pg)
                    .chain(information)
                    .map(|(schema, name, kind)| {
                        row([
                            ("table_catalog", database()),
                            ("table_schema", schema.into()),
                            ("table_name", name.into()),
                            ("table_type", kind.into()),
                            ("is_insertable_into", "NO".into()),
                            ("is_typed", "NO".into()),
                        ])
                    })
                    .collect()
            }
            "columns" => {
                let public = self.public().map(|r| ("public", r.name.as_str(), r.schema.clone()));
                let pg =
                    FILLED.iter().chain(EMPTY).map(|(name, spec)| ("pg_catalog", *name, schema_of(spec)));
                public
                    .chain(pg)
                    .flat_map(|(schema, table, columns)| {
                        columns
                            .fields()
                            .iter()
                            .enumerate()
                            .map(|(i, field)| self.column_row(schema, table, i, field))
                            .collect::<Vec<_>>()
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn column_row(&self, schema: &str, table: &str, i: usize, field: &Field) -> Row {
        let kind = ColumnType::of(field);
        let udt = format!("{}{}", if kind.array { "_" } else { "" }, kind.scalar.name);
        let data_type = if kind.array { "ARRAY".to_owned() } else { kind.sql_name() };
        let precision = match kind.scalar {
            types::INT2 => V::I(16),
            types::INT4 => V::I(32),
            types::INT8 => V::I(64),
            types::FLOAT4 => V::I(24),
            types::FLOAT8 => V::I(53),
            _ => V::Null,
        };
        row([
            ("table_catalog", self.database.as_str().into()),
            ("table_schema", schema.into()),
            ("table_name", table.into()),
            ("column_name", field.name().as_str().into()),
            ("ordinal_position", (i as i64 + 1).into()),
            ("is_nullable", if field.is_nullable() { "YES" } else { "NO" }.into()),
            ("data_type", data_type.as_str().into()),
            ("numeric_precision", precision),
            ("udt_catalog", self.database.as_str().into()),
            ("udt_schema", "pg_catalog".into()),
            ("udt_name", udt.as_str().into()),
            ("dtd_identifier", (i as i64 + 1).to_string().as_str().into()),
            ("is_identity", "NO".into()),
            ("is_generated", "NEVER".into()),
            ("is_updatable", "NO".into()),
        ])
    }
}

fn class_row(r: &Relation) -> Row {
    row([
        ("oid", r.oid.into()),
        ("relname", r.name.as_str().into()),
        ("relnamespace", r.namespace.into()),
        ("relowner", ROLE.into()),
        ("relam", 2.into()),
        ("reltuples", (-1).into()),
        ("relpersistence", "p".into()),
        ("relkind", if r.namespace == INFORMATION_SCHEMA { "v" } else { "r" }.into()),
        ("relnatts", (r.schema.fields().len() as i64).into()),
        ("relispopulated", true.into()),
        ("relreplident", "n".into()),
    ])
}

fn attribute_rows(r: &Relation) -> Vec<Row> {
    let attribute = |(i, field): (usize, &Arc<Field>)| {
        let kind = ColumnType::of(field);
        row([
            ("attrelid", r.oid.into()),
            ("attname", field.name().as_str().into()),
            ("atttypid", i64::from(kind.oid()).into()),
            ("attlen", i64::from(kind.size()).into()),
            ("attnum", (i as i64 + 1).into()),
            ("attndims", i64::from(kind.array).into()),
            ("atttypmod", (-1).into()),
            ("attstorage", "p".into()),
            ("attnotnull", (!field.is_nullable()).into()),
            ("attislocal", true.into()),
        ])
    };
    r.schema.fields().iter().enumerate().map(attribute).collect()
}

fn type_rows() -> Vec<Row> {
    let scalar = |t: &types::PgType| {
        row([
            ("oid", i64::from(t.oid).into()),
            ("typname", t.name.into()),
            ("typlen", i64::from(t.size).into()),
            ("typarray", i64::from(t.array_oid).into()),
            ("typcategory", t.category.into()),
            ("typinput", format!("{}in", t.name).as_str().into()),
        ])
    };
    let array = |t: &types::PgType| {
        row([
            ("oid", i64::from(t.array_oid).into()),
            ("typname", format!("_{}", t.name).as_str().into()),
            ("typlen", (-1).into()),
            ("typelem", i64::from(t.oid).into()),
            ("typcategory", "A".into()),
            ("typinput", "array_in".into()),
        ])
    };
    let arrays = types::SCALARS.iter().filter(|t| t.array_oid != 0).map(array);
    let common = |mut row: Row| {
        row.extend([
            ("typnamespace", PG_CATALOG.into()),
            ("typowner", ROLE.into()),
            ("typtype", "b".into()),
            ("typisdefined", true.into()),
            ("typdelim", ",".into()),
            ("typtypmod", (-1).into()),
        ]);
        row
    };
    types::SCALARS.iter().map(scalar).chain(arrays).map(common).collect()
}

/// The fixed object ids of the catalogue's own tables that clients name.
fn system_oid(name: &str) -> Option<i64> {
    Some(match name {
        "pg_type" => 1247,
        "pg_attribute" => 1249,
        "pg_proc" => 1255,
        "pg_class" => 1259,
        "pg_authid" => 1260,
        "pg_database" => 1262,
        "pg_tablespace" => 1213,
        "pg_attrdef" => 2604,
        "pg_constraint" => 2606,
        "pg_description" => 2609,
        "pg_index" => 2610,
        "pg_namespace" => 2615,
        "pg_rewrite" => 2618,
        "pg_trigger" => 2620,
        "pg_extension" => 3079,
        _ => return None,
    })
}

/// Whether there is a table of this name in `pg_catalog`.
pub fn is_table(name: &str) -> bool {
    name.starts_with("pg_") && FILLED.iter().chain(EMPTY).any(|(n, _)| *n == name)
}

/// Whether a table of `pg_catalog` never has a row.
pub fn is_empty(name: &str) -> bool {
    EMPTY.iter().any(|(n, _)| *n == name)
}

/// A value of the catalogue.
#[derive(Clone, Debug)]
enum V {
    Null,
    I(i64),
    B(bool),
    S(String),
}

impl From<i64> for V {
    fn from(v: i64) -> Self {
        Self::I(v)
    }
}

impl From<bool> for V {
    fn from(v: bool) -> Self {
        Self::B(v)
    }
}

impl From<&str> for V {
    fn from(v: &str) -> Self {
        Self::S(v.to_owned())
    }
}

type Row = HashMap<&'static str, V>;

fn row<const N: usize>(values: [(&'static str, V); N]) -> Row {
    values.into_iter().collect()
}

/// The columns of a table: `name type` pairs, separated by commas.
fn fields(spec: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    spec.split(',').filter_map(|c| c.trim().split_once(' '))
}

fn schema_of(spec: &'static str) -> SchemaRef {
    let field = |(name, kind): (&str, &str)| {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        let data_type = match kind {
            "bool" => DataType::Boolean,
            "int2" => DataType::Int16,
            "int4" => DataType::Int32,
            "oid" | "int8" => DataType::Int64,
            "float4" => DataType::Float32,
            "text[]" => list(DataType::Utf8),
            _ => DataType::Utf8,
        };
        let field = Field::new(name, data_type, true);
        match kind {
            "oid" | "name" | "char" => {
                field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), kind.to_owned())]))
            }
            _ => field,
        }
    };
    Arc::new(Schema::new(fields(spec).map(field).collect::<Vec<_>>()))
}

/// A table with rows; what a row does not say is 0, false, or NULL for texts.
fn mem_table(spec: &'static str, rows: Vec<Row>) -> Result<MemTable> {
    let schema = schema_of(spec);
    let arrays = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            let values = rows.iter().map(|r| r.get(field.name().as_str()).unwrap_or(&V::Null));
            let ints = values.clone().map(|v| if let V::I(i) = v { Some(*i) } else { None });
            // Only the information schema has numbers that may be unknown.
            let zero = if spec.contains("table_catalog") { None } else { Some(0) };
            let ints = ints.map(|i| i.or(zero));
            match field.data_type() {
                DataType::Boolean => {
                    Arc::new(values.map(|v| Some(matches!(v, V::B(true)))).collect::<BooleanArray>())
                }
                DataType::Int16 => Arc::new(ints.map(|i| i.map(|i| i as i16)).collect::<Int16Array>()),
                DataType::Int32 => Arc::new(ints.map(|i| i.map(|i| i as i32)).collect::<Int32Array>()),
                DataType::Int64 => Arc::new(ints.collect::<Int64Array>()),
                DataType::Float32 => Arc::new(ints.map(|i| i.map(|i| i as f32)).collect::<Float32Array>()),
                DataType::List(_) => {
                    let mut lists = ListBuilder::new(StringBuilder::new());
                    rows.iter().for_each(|_| lists.append_null());
                    Arc::new(lists.finish())
                }
                _ => {
                    let empty = field.metadata().get(TYPE_KEY).is_some_and(|k| k == "char");
                    Arc::new(
                        values
                            .map(|v| match v {
                                V::S(s) => Some(s.as_str()),
                                _ => empty.then_some(""),
                            })
                            .collect::<StringArray>(),
                    )
                }
            }
        })
        .collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    MemTable::try_new(schema, vec![vec![batch]])
}
