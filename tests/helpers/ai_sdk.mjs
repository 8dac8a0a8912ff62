// What a program does with Vercel's AI SDK and its default OpenAI model; prints what it got as one line of JSON.
import {createOpenAI} from "@ai-sdk/openai";
import {generateText, stepCountIs, streamText, tool} from "ai";
import {z} from "zod";

const [baseURL, apiKey] = process.argv.slice(2);
const model = createOpenAI({baseURL, apiKey})("gpt-5-mini");
const add = tool({
  description: "Adds two numbers.",
  inputSchema: z.object({a: z.number(), b: z.number()}),
  execute: async ({a, b}) => a + b,
});
const about = {model, tools: {add}, stopWhen: stepCountIs(5), maxOutputTokens: 5000, maxRetries: 0};
const messages = [{role: "user", content: "Add 1 and 1"}];

const first = await generateText({...about, messages});
messages.push(...first.response.messages, {role: "user", content: "And again"});
const second = streamText({...about, messages, onError: ({error}) => { throw error; }});
let text = "";
for await (const piece of second.textStream) text += piece;
messages.push(...(await second.response).messages, {role: "user", content: "Thank you"});
const third = await generateText({...about, messages});
const steps = [first.steps.length, (await second.steps).length, third.steps.length];
console.log(JSON.stringify({steps, texts: [first.text, text, third.text]}));
