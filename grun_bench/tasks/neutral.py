"""What is nobody's: sentences of our own about everyday matters, found in no data set, and questions that models know.

Sentences are unrelated text to fine-tune on, and what a model must go on writing as it did; questions with their
answers, and wrong ones, are what it must go on knowing.
"""

from __future__ import annotations

SENTENCES = (
    "The bus was late because a lorry had stopped in the narrow lane behind the bakery.",
    "Before painting the fence, brush off the old flakes and let the wood dry for a day.",
    "Her grandmother kept the good scissors in a tin that had once held ginger biscuits.",
    "When the lake freezes over, the ducks walk about on it as if they had lost something.",
    "A pinch of salt in the dough makes the difference between dull bread and good bread.",
    "The caretaker sweeps the yard from left to right and has done so for eleven years.",
    "If the kettle whistles twice, somebody has forgotten to pour the tea again.",
    "On windy days the washing dries quickly, but the socks are hard to find afterwards.",
    "They moved the piano to the other wall and the room seemed larger at once.",
    "The old bicycle squeaks most when the road climbs and hardly at all when it falls.",
    "Seeds sown too early rot in the cold soil; those sown in May catch up with them anyway.",
    "Someone had left an umbrella at the library, green with a wooden handle.",
    "The clock in the station hall is always three minutes fast, so nobody misses a train.",
    "To fold a map properly you need a table, patience and no wind whatsoever.",
    "Our neighbour waters his tomatoes before sunrise and talks to them while he does.",
    "A cat that sits by the door does not always want to go out.",
    "The recipe asks for four eggs, though three large ones will do as well.",
    "After the rain the snails came out and crossed the path as slowly as ever.",
    "He sharpened both pencils, broke one of them, and wrote the letter with the other.",
    "The ferry takes twelve cars, or ten and a tractor, and leaves when it is full.",
    "In winter the cellar smells of apples and in summer of nothing at all.",
    "Children in the back row drew ships while the teacher spoke about commas.",
    "If a drawer sticks, rub a candle along its edges and it will run smoothly.",
    "The tailor measured the sleeve again and shook his head at the first number.",
    "Nobody could say who had planted the pear tree, but everyone ate from it.",
    "A wet sponge cools a hot pan faster than you would expect, and more loudly.",
    "The postwoman knows every dog in the street and carries something for each.",
    "They agreed to meet at the fountain and waited on opposite sides of it.",
    "Good soup needs time rather than skill, and a lid that fits.",
    "The ladder was a little too short, so he cut the higher branches from the roof.",
    "On the last day of the holidays the beach belonged to the gulls again.",
    "Wool shrinks in hot water, as the red jumper on the smallest doll shows.",
    "The shop on the corner sells buttons singly, wrapped in a twist of paper.",
    "Every spring the same pair of swallows argues about the same beam in the barn.",
    "She counted the stairs each time, although there had always been nineteen.",
    "A blunt knife is more trouble than none, says the cook, and sharpens hers daily.",
    "The band practised with the windows open until somebody asked for a slower tune.",
    "Dust gathers first on the shelves that nobody can reach without a chair.",
    "Halfway up the hill there is a bench from which the river looks like a ribbon.",
    "The lamp flickered, went out, and came on again as soon as a new bulb was found.",
)

#: question -> its answer and wrong ones
QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "How many days are there in a week?": (
        "There are seven days in a week.",
        ("There are eight days in a week.", "There are five days in a week.", "There are ten days in a week."),
    ),
    "What is the capital of France?": (
        "The capital of France is Paris.",
        ("The capital of France is Lyon.", "The capital of France is Madrid.", "The capital of France is Berlin."),
    ),
    "What colour is fresh snow?": (
        "Fresh snow is white.",
        ("Fresh snow is green.", "Fresh snow is black.", "Fresh snow is red."),
    ),
    "How many legs does a spider have?": (
        "A spider has eight legs.",
        ("A spider has six legs.", "A spider has four legs.", "A spider has ten legs."),
    ),
    "What do bees make from nectar?": (
        "Bees make honey from nectar.",
        ("Bees make butter from nectar.", "Bees make paper from nectar.", "Bees make silk from nectar."),
    ),
    "At what temperature does water freeze?": (
        "Water freezes at zero degrees Celsius.",
        (
            "Water freezes at ten degrees Celsius.",
            "Water freezes at fifty degrees Celsius.",
            "Water freezes at ninety degrees Celsius.",
        ),
    ),
    "What is two plus three?": (
        "Two plus three is five.",
        ("Two plus three is six.", "Two plus three is four.", "Two plus three is nine."),
    ),
    "Which planet do we live on?": (
        "We live on the planet Earth.",
        ("We live on the planet Mars.", "We live on the planet Venus.", "We live on the planet Saturn."),
    ),
    "What is the opposite of hot?": (
        "The opposite of hot is cold.",
        ("The opposite of hot is tall.", "The opposite of hot is loud.", "The opposite of hot is slow."),
    ),
    "Which season comes after winter?": (
        "Spring comes after winter.",
        ("Autumn comes after winter.", "Summer comes after winter.", "Harvest comes after winter."),
    ),
    "What is bread usually made from?": (
        "Bread is usually made from flour.",
        ("Bread is usually made from sand.", "Bread is usually made from fish.", "Bread is usually made from wool."),
    ),
    "How many months does a year have?": (
        "A year has twelve months.",
        ("A year has ten months.", "A year has thirteen months.", "A year has twenty months."),
    ),
    "What is the capital of Italy?": (
        "The capital of Italy is Rome.",
        ("The capital of Italy is Milan.", "The capital of Italy is Vienna.", "The capital of Italy is Athens."),
    ),
    "Which animal barks?": ("A dog barks.", ("A cow barks.", "A fish barks.", "A hen barks.")),
    "What do we use a hammer for?": (
        "We use a hammer to drive in nails.",
        ("We use a hammer to cut hair.", "We use a hammer to boil eggs.", "We use a hammer to write letters."),
    ),
    "What is frozen water called?": (
        "Frozen water is called ice.",
        ("Frozen water is called steam.", "Frozen water is called glass.", "Frozen water is called salt."),
    ),
    "How many hours are there in a day?": (
        "There are twenty-four hours in a day.",
        ("There are twelve hours in a day.", "There are thirty hours in a day.", "There are sixty hours in a day."),
    ),
    "In which direction does the sun rise?": (
        "The sun rises in the east.",
        ("The sun rises in the west.", "The sun rises in the north.", "The sun rises in the south."),
    ),
    "What is the largest ocean?": (
        "The largest ocean is the Pacific Ocean.",
        (
            "The largest ocean is the Arctic Ocean.",
            "The largest ocean is the Atlantic Ocean.",
            "The largest ocean is the Indian Ocean.",
        ),
    ),
    "What do cows eat?": ("Cows eat grass.", ("Cows eat stones.", "Cows eat meat.", "Cows eat paper.")),
    "How many wheels does a bicycle have?": (
        "A bicycle has two wheels.",
        ("A bicycle has four wheels.", "A bicycle has three wheels.", "A bicycle has six wheels."),
    ),
    "What is the capital of Japan?": (
        "The capital of Japan is Tokyo.",
        ("The capital of Japan is Osaka.", "The capital of Japan is Beijing.", "The capital of Japan is Seoul."),
    ),
    "What colour do you get by mixing blue and yellow?": (
        "Mixing blue and yellow gives green.",
        (
            "Mixing blue and yellow gives pink.",
            "Mixing blue and yellow gives brown.",
            "Mixing blue and yellow gives red.",
        ),
    ),
    "Which month comes after June?": (
        "July comes after June.",
        ("May comes after June.", "October comes after June.", "March comes after June."),
    ),
    "What is the force that pulls things to the ground?": (
        "Gravity pulls things to the ground.",
        (
            "Friction pulls things to the ground.",
            "Magnetism pulls things to the ground.",
            "Lightning pulls things to the ground.",
        ),
    ),
    "What do people wear on their feet?": (
        "People wear shoes on their feet.",
        ("People wear gloves on their feet.", "People wear hats on their feet.", "People wear scarves on their feet."),
    ),
    "How many minutes are there in an hour?": (
        "There are sixty minutes in an hour.",
        (
            "There are ninety minutes in an hour.",
            "There are forty minutes in an hour.",
            "There are a hundred minutes in an hour.",
        ),
    ),
    "What gas do people need to breathe?": (
        "People need oxygen to breathe.",
        ("People need helium to breathe.", "People need neon to breathe.", "People need argon to breathe."),
    ),
    "Which language is spoken in Brazil?": (
        "Portuguese is spoken in Brazil.",
        ("Swedish is spoken in Brazil.", "Polish is spoken in Brazil.", "Greek is spoken in Brazil."),
    ),
    "What is the capital of Spain?": (
        "The capital of Spain is Madrid.",
        ("The capital of Spain is Lisbon.", "The capital of Spain is Seville.", "The capital of Spain is Paris."),
    ),
    "What does a clock show?": (
        "A clock shows the time.",
        ("A clock shows the weather.", "A clock shows the distance.", "A clock shows the weight."),
    ),
    "Which bird cannot fly and lives in Antarctica?": (
        "The penguin cannot fly and lives in Antarctica.",
        (
            "The swallow cannot fly and lives in Antarctica.",
            "The eagle cannot fly and lives in Antarctica.",
            "The gull cannot fly and lives in Antarctica.",
        ),
    ),
    "How many sides does a triangle have?": (
        "A triangle has three sides.",
        ("A triangle has four sides.", "A triangle has five sides.", "A triangle has seven sides."),
    ),
    "What do plants need to grow?": (
        "Plants need water and light to grow.",
        (
            "Plants need petrol and smoke to grow.",
            "Plants need sugar and tea to grow.",
            "Plants need iron and glass to grow.",
        ),
    ),
    "What is the Moon to the Earth?": (
        "The Moon is the Earth's satellite.",
        ("The Moon is the Earth's star.", "The Moon is the Earth's ocean.", "The Moon is the Earth's engine."),
    ),
    "Where is milk best kept?": (
        "Milk is best kept in the refrigerator.",
        ("Milk is best kept in the oven.", "Milk is best kept in the garden.", "Milk is best kept in the cupboard."),
    ),
    "What is ten minus four?": (
        "Ten minus four is six.",
        ("Ten minus four is three.", "Ten minus four is eight.", "Ten minus four is seven."),
    ),
    "Which metal do magnets attract?": (
        "Magnets attract iron.",
        ("Magnets attract gold.", "Magnets attract silver.", "Magnets attract tin."),
    ),
    "What do you call a baby cat?": (
        "A baby cat is called a kitten.",
        ("A baby cat is called a puppy.", "A baby cat is called a calf.", "A baby cat is called a lamb."),
    ),
    "Which continent is Egypt in?": (
        "Egypt is in Africa.",
        ("Egypt is in Europe.", "Egypt is in Australia.", "Egypt is in Antarctica."),
    ),
}
