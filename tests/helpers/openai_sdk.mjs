// What a program does with OpenAI's Node SDK; prints what it got as one line of JSON.
import OpenAI from "openai";

const [baseURL, key, poor] = process.argv.slice(2);
const about = {model: "echo", messages: [{role: "user", content: "Hi"}], max_tokens: 9};
const client = new OpenAI({baseURL, apiKey: key});
const found = {};

const chat = await client.chat.completions.create(about);
found.chat = [chat.choices[0].message.content, chat.usage.total_tokens];

found.stream = [];
for await (const chunk of await client.chat.completions.create({...about, stream: true}))
  found.stream.push(chunk.choices[0]?.delta?.content ?? null);

found.usage = null;
for await (const chunk of await client.chat.completions.create(
  {...about, stream: true, stream_options: {include_usage: true}})) found.usage = chunk.usage ?? found.usage;

found.response = (await client.responses.create({model: "echo", input: "Hi", max_output_tokens: 9})).output_text;

found.events = [];
for await (const event of await client.responses.create(
  {model: "echo", input: "Hi", max_output_tokens: 9, stream: true})) found.events.push(event.type);

found.models = (await client.models.list()).data.map(one => one.id);

try {
  await new OpenAI({baseURL, apiKey: poor, maxRetries: 4}).chat.completions.create({...about, max_tokens: 50});
} catch (error) {
  found.refusal = [error.constructor.name, error.status, error.code, error.error?.budget?.limit];
}
try {
  for await (const _ of await new OpenAI({baseURL, apiKey: key, maxRetries: 0}).chat.completions.create(
    {...about, model: "cut", stream: true}));
} catch (error) {
  found.cut = String(error.message);
}
const controller = new AbortController();
try {
  for await (const _ of await client.chat.completions.create(
    {...about, model: "slow", stream: true}, {signal: controller.signal})) controller.abort();
} catch (error) { /* that is what was asked for */ }
found.aborted = controller.signal.aborted;
console.log(JSON.stringify(found));
