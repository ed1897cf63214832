//! Flight SQL over the querier: statements and prepared statements, read-only, one endpoint per answer.
//!
//! A ticket carries the statement, so an answer can be fetched from any querier. The tenants come with each call's
//! metadata (`x-scope-orgid`).

use std::{pin::Pin, sync::Arc};

use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::{FlightService, FlightServiceServer},
    sql::{
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
        ActionCreatePreparedStatementResult, Any, CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo,
        CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery,
        ProstMessageExt, SqlInfo, TicketStatementQuery,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use arrow_schema::{DataType, Field, Schema};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use sextant_model::TenantId;
use sextant_proto::ErrorClass;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{engine::Querier, error::QueryError};

/// Tells whose data a call reads, from its metadata.
pub type TenantResolver = Arc<dyn Fn(Option<&str>) -> Result<Vec<TenantId>, String> + Send + Sync>;

/// The Flight SQL service.
#[derive(Clone)]
pub struct FlightSql {
    querier: Querier,
    tenants: TenantResolver,
    info: Arc<SqlInfoData>,
}

type DataStream = Pin<Box<dyn Stream<Item = Result<arrow_flight::FlightData, Status>> + Send>>;

/// The gRPC service over a querier.
pub fn flight_service(
    querier: Querier,
    tenants: TenantResolver,
) -> Result<FlightServiceServer<FlightSql>, String> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Sextant");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    let info = Arc::new(info.build().map_err(|e| e.to_string())?);
    Ok(FlightServiceServer::new(FlightSql { querier, tenants, info }))
}

fn status(e: QueryError) -> Status {
    class_status(e.class(), e.to_string())
}

fn class_status(class: ErrorClass, message: String) -> Status {
    Status::new(tonic::Code::from_i32(class.grpc()), message)
}

fn internal(e: impl std::fmt::Display) -> Status {
    Status::internal(e.to_string())
}

fn statement_of(handle: &[u8]) -> Result<String, Status> {
    String::from_utf8(handle.to_vec())
        .map_err(|_| Status::invalid_argument("the statement's handle is not UTF-8"))
}

fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &Default::default()).try_into().map_err(internal)?;
    Ok(message.0)
}

/// The schema as rows are sent: the encoder writes dictionaries out.
fn plain(schema: &Schema) -> Schema {
    let field = |f: &Arc<Field>| match f.data_type() {
        DataType::Dictionary(_, value) => Arc::new(f.as_ref().clone().with_data_type((**value).clone())),
        _ => f.clone(),
    };
    Schema::new_with_metadata(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
        schema.metadata().clone(),
    )
}

impl FlightSql {
    fn tenants(&self, metadata: &MetadataMap) -> Result<Vec<TenantId>, Status> {
        let header = metadata.get("x-scope-orgid").map(|v| v.to_str()).transpose();
        let header = header.map_err(|_| Status::invalid_argument("x-scope-orgid is not text"))?;
        (self.tenants)(header).map_err(Status::unauthenticated)
    }

    async fn schema_of(&self, metadata: &MetadataMap, sql: &str) -> Result<Arc<Schema>, Status> {
        let tenants = self.tenants(metadata)?;
        Ok(Arc::new(plain(&self.querier.sql_plan(&tenants, sql).await.map_err(status)?.schema())))
    }

    async fn info_of(
        &self,
        request: &Request<FlightDescriptor>,
        sql: &str,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = self.schema_of(request.metadata(), sql).await?;
        let ticket = TicketStatementQuery { statement_handle: sql.as_bytes().to_vec().into() };
        self.flight_info(&schema, ticket.as_any(), request.get_ref())
    }

    fn flight_info(
        &self,
        schema: &Schema,
        ticket: Any,
        descriptor: &FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()));
        let info = FlightInfo::new()
            .try_with_schema(schema)
            .map_err(internal)?
            .with_endpoint(endpoint)
            .with_descriptor(descriptor.clone());
        Ok(Response::new(info))
    }

    async fn rows(&self, metadata: &MetadataMap, sql: &str) -> Result<Response<DataStream>, Status> {
        let tenants = self.tenants(metadata)?;
        let answer = self.querier.sql(&tenants, sql).await.map_err(status)?;
        Ok(Self::encode(answer.schema, answer.batches))
    }

    fn encode(schema: Arc<Schema>, batches: Vec<arrow_array::RecordBatch>) -> Response<DataStream> {
        let stream = futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(stream).map_err(Status::from);
        Response::new(data.boxed())
    }

    fn one(
        batch: Result<arrow_array::RecordBatch, impl std::fmt::Display>,
    ) -> Result<Response<DataStream>, Status> {
        let batch = batch.map_err(internal)?;
        Ok(Self::encode(batch.schema(), vec![batch]))
    }
}

const CATALOG: &str = "sextant";
const DB_SCHEMA: &str = "public";

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    async fn do_handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let reply = HandshakeResponse { protocol_version: 0, payload: bytes::Bytes::new() };
        Ok(Response::new(futures::stream::once(async { Ok(reply) }).boxed()))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info_of(&request, &query.query).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let sql = statement_of(&query.prepared_statement_handle)?;
        self.info_of(&request, &sql).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let sql = statement_of(&ticket.statement_handle)?;
        self.rows(request.metadata(), &sql).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let sql = statement_of(&query.prepared_statement_handle)?;
        self.rows(request.metadata(), &sql).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let schema = self.schema_of(request.metadata(), &query.query).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into_bytes().into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&Schema::empty())?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        _: CommandPreparedStatementQuery,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<arrow_flight::sql::DoPutPreparedStatementResult, Status> {
        Err(Status::unimplemented("statements with parameters are not supported"))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.into_builder().schema();
        self.flight_info(&schema, query.as_any(), request.get_ref())
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append(CATALOG);
        Self::one(builder.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        self.flight_info(&schema, query.as_any(), request.get_ref())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append(CATALOG, DB_SCHEMA);
        Self::one(builder.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        self.flight_info(&schema, query.as_any(), request.get_ref())
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        for table in ["metrics", "samples"] {
            let schema = self.schema_of(request.metadata(), &format!("select * from {table}")).await?;
            builder.append(CATALOG, DB_SCHEMA, table, "TABLE", &schema).map_err(internal)?;
        }
        Self::one(builder.build())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.into_builder().schema();
        self.flight_info(&schema, query.as_any(), request.get_ref())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append("TABLE");
        Self::one(builder.build())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder(&self.info).schema();
        self.flight_info(&schema, query.as_any(), request.get_ref())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Self::one(query.into_builder(&self.info).build())
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
