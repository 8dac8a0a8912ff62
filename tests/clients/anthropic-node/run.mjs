// Anthropic's library for Node.
import Anthropic from "@anthropic-ai/sdk";
import {zodOutputFormat} from "@anthropic-ai/sdk/helpers/zod";
import {betaZodTool} from "@anthropic-ai/sdk/helpers/beta/zod";
import {z} from "zod";
import {BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed} from "./cases.mjs";

const baseURL = BASE_URL.replace(/\/v1$/, "");
const client = new Anthropic({baseURL, apiKey: KEY});
const Person = z.object({name: z.string(), age: z.int()});
const about = text => ({model: MODEL, max_tokens: 1000, messages: [{role: "user", content: text}]});

async function chat() {
  return {text: (await client.messages.create(about(HELLO))).content[0].text};
}

async function* texts(events) {
  for await (const event of events) if (event.type === "content_block_delta") yield event.delta.text;
}

async function stream() {
  const events = client.messages.stream(about(HELLO));
  const found = await streamed(texts(events));
  const {stop_reason} = await events.finalMessage();
  if (stop_reason !== "end_turn") throw new Error(stop_reason);
  return found;
}

async function tools() {
  const tool = betaZodTool({
    name: "add", description: "Add two numbers.", inputSchema: z.object({a: z.int(), b: z.int()}),
    run: given => String(add(given)),
  });
  const said = await client.beta.messages.toolRunner({...about(SUM), tools: [tool]});
  return {text: said.content[0].text, called};
}

async function structured() {
  const said = await client.messages.parse({...about(WHO), output_config: {format: zodOutputFormat(Person)}});
  return said.parsed_output;
}

async function spent() {
  const poor = new Anthropic({baseURL, apiKey: SPENT_KEY});
  return refused(() => poor.messages.create(about(HELLO)));
}

run({chat, stream, tools, structured, spent});
