// OpenAI's library for Node.
import OpenAI from "openai";
import {zodResponseFormat, zodTextFormat} from "openai/helpers/zod";
import {z} from "zod";
import {BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed} from "./cases.mjs";

const client = new OpenAI({baseURL: BASE_URL, apiKey: KEY});
const Person = z.object({name: z.string(), age: z.int()});
const parameters = {
  type: "object", properties: {a: {type: "integer"}, b: {type: "integer"}}, required: ["a", "b"],
  additionalProperties: false,
};
const ask = text => [{role: "user", content: text}];

async function chat() {
  const said = await client.chat.completions.create({model: MODEL, messages: ask(HELLO)});
  return {text: said.choices[0].message.content};
}

async function* texts(chunks) {
  for await (const chunk of chunks) yield chunk.choices[0]?.delta?.content;
}

async function stream() {
  return streamed(texts(await client.chat.completions.create({model: MODEL, messages: ask(HELLO), stream: true})));
}

async function tools() {
  const runner = client.chat.completions.runTools({
    model: MODEL, messages: ask(SUM),
    tools: [{type: "function", function: {
      name: "add", description: "Add two numbers.", parameters, parse: JSON.parse, function: given => String(add(given)),
    }}],
  });
  return {text: await runner.finalContent(), called};
}

async function structured() {
  const said = await client.chat.completions.parse({
    model: MODEL, messages: ask(WHO), response_format: zodResponseFormat(Person, "person"),
  });
  return said.choices[0].message.parsed;
}

async function spent() {
  const poor = new OpenAI({baseURL: BASE_URL, apiKey: SPENT_KEY});
  return refused(() => poor.chat.completions.create({model: MODEL, messages: ask(HELLO)}));
}

async function* deltas(events) {
  for await (const event of events) if (event.type === "response.output_text.delta") yield event.delta;
}

async function responses() {
  const found = await streamed(deltas(client.responses.stream({model: MODEL, input: HELLO})));
  const whole = await client.responses.create({model: MODEL, input: HELLO});
  if (whole.output_text !== found.text) throw new Error(`${whole.output_text} is not ${found.text}`);
  const parsed = await client.responses.parse({model: MODEL, input: WHO, text: {format: zodTextFormat(Person, "person")}});
  if (parsed.output_parsed.name !== "Ada") throw new Error(JSON.stringify(parsed.output_parsed));
  return found;
}

// by previous_response_id
async function turns() {
  const about = {model: MODEL, tools: [{type: "function", name: "add", description: "Add.", parameters, strict: true}]};
  const texts = [];
  let last;
  for (const question of SUMS) {
    let said = await client.responses.create({...about, input: question, previous_response_id: last});
    const call = said.output.find(item => item.type === "function_call");
    const output = String(add(JSON.parse(call.arguments)));
    const result = {type: "function_call_output", call_id: call.call_id, output};
    said = await client.responses.create({...about, input: [result], previous_response_id: said.id});
    texts.push(said.output_text);
    last = said.id;
  }
  return {texts, called};
}

run({chat, stream, tools, structured, spent, responses, turns});
